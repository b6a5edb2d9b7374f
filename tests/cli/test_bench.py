"""`shotstream bench`: what it prints and writes, and what it refuses."""

import json

import pytest

QUICK = ("--shots", "2", "--frames", "9", "--warmup", "0")
"""Two shots of one chunk."""


def test_a_film_of_the_miniature_is_measured(run, tmp_path):
    status, out, err = run("bench", *QUICK, "--json", "-o", tmp_path / "bench.json")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert json.loads((tmp_path / "bench.json").read_text()) == found
    assert found["kind"] == "film"
    assert found["model"]["name"] == "tiny"
    assert found["film"]["frames"] == found["end_to_end"]["frames"] == 18
    seconds = found["end_to_end"]["seconds"]
    assert found["end_to_end"]["fps"] == pytest.approx(18 / seconds)
    assert 0 < found["end_to_end"]["time_to_first_frame"] < seconds
    assert found["command"][0] == "shotstream"
    assert {"device", "versions", "commit", "command", "flags", "time"} <= found.keys()
    parts = found["split"]["parts"]
    assert {"denoise", "decode", "context pass", "mp4 encode"} <= parts.keys()


def test_random_and_approximate_weights_are_called_so(run):
    approximate = ("--approximate", "int8-weights")
    status, out, _ = run("bench", *QUICK, "--random-weights", *approximate, "--json")
    assert status == 0
    model = json.loads(out)["model"]
    assert (model["weights"], model["approximate"]) == ("random", ["int8-weights"])


def test_a_person_reads_a_table(run):
    status, out, _ = run("bench", *QUICK)
    assert status == 0
    assert "frames/s end to end: 2 shots of 9 frames, 48 x 80" in " ".join(out.split())
    assert "denoise" in out


def test_kernels_are_measured_by_every_way_that_runs_here(run):
    status, out, _ = run("bench", "--kernels", "--small", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["shapes_of"] == "tiny"
    rows = found["kernels"]
    assert {row["kernel"] for row in rows} == {"attention", "decode-first", "decode-next"}
    measured = [row for row in rows if "seconds" in row]
    assert {row.get("backend") for row in measured} >= {"xla", None}
    assert all(row["seconds"] > 0 and row["tflops_per_second"] > 0 for row in measured)
    skipped = [row for row in rows if "skipped" in row]
    assert {row["backend"] for row in skipped} <= {"cudnn", "splash"}


def test_a_report_is_rehearsed_without_a_gpu(run, tmp_path):
    status, _, said = run("bench", "--gpu-report", "--rehearse", *QUICK, "-o", tmp_path / "report")
    assert status == 0, said
    files = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "report").iterdir()}
    assert files.keys() == {"end_to_end", "merged", "kernels", "equality", "peer"}
    assert all(document["rehearsed"] for document in files.values())
    assert all(document["model"]["weights"] == "random" for document in files.values())
    equality = files["equality"]
    assert equality["within"]
    assert all(check["error"] <= check["tolerance"] for check in equality["checks"])
    assert any("bfloat16" in check["path"] for check in equality["checks"])
    assert any("merged" in check["path"] for check in equality["checks"])
    assert all(files[name]["end_to_end"]["fps"] > 0 for name in ("end_to_end", "merged"))
    assert "context pass and denoise" in files["merged"]["split"]["parts"]
    peer = files["peer"]
    assert "skipped" in peer or all(part["ratio"] > 0 for part in peer["parts"].values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kernels", "--gpu-report", "-o", "r"), "--kernels is part of --gpu-report"),
        (("--small",), "--small belongs to --kernels"),
        (("--rehearse",), "--rehearse belongs to --gpu-report"),
        (("--kernels", "--merged"), "--merged is for a film"),
        (("--gpu-report", "-o", "r", "--approximate", "int8-cache"), "--approximate is for a film"),
        (("--gpu-report",), "give it a folder with -o"),
        (("--gpu-report", "-o", "r"), "A GPU's report needs a GPU, this machine has a cpu"),
        (("--frames", "10"), "A shot of 10 frames is not whole chunks; try 9"),
        (("--size", "40x80"), "height of 40"),
        (("--size", "small"), "Size 'small' is not understood"),
        (("--shots", "0"), "0 shots"),
        (("--devices", "99"), "99 devices were asked for"),
    ],
)
def test_bad_input_is_refused(refused, options, message):
    assert message in refused("bench", *options)
