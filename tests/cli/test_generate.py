import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from shotstream_jax.cli.main import main
from shotstream_jax.cli.progress_bar import ProgressBar
from shotstream_jax.directing import folder_contents, shot_files
from shotstream_jax.directing.video import read_video
from shotstream_jax.presets import TINY
from shotstream_jax.rollout.stream import Camera


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_everything_is_there(film):
    shots = [f"shot_{n:02d}.{suffix}" for n in (1, 2) for suffix in ("json", "mp4", "npz")]
    assert files(film) == sorted(
        [*shots, *("contact.png", "film.mp4", "manifest.json", "story.yaml")]
    )
    assert read_video(film / "film.mp4").shape == (18, 32, 48, 3)
    with np.load(film / "shot_02.npz") as shot:
        assert shot["latents"].shape == (
            1,
            3,
            *TINY.vae.latent_grid(32, 48),
            TINY.vae.latent_channels,
        )


def test_manifest_says_what_made_it(film):
    manifest = json.loads((film / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert (manifest["weights"], manifest["badge"]) == ("trained", "")
    assert manifest["seeds"] == [3, 3]
    assert manifest["timings"]["frames"] == 18
    assert set(manifest["timings"]["shots"]) == {"shot_01", "shot_02"}


def test_random_weights_are_called_so(run, story, untrained, tmp_path):
    folder = tmp_path / "film"
    status, _, said = run("generate", story, "-o", folder, "--checkpoint", untrained)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert status == 0
    assert "These weights are random" in said
    assert (manifest["weights"], manifest["badge"]) == ("random", "random weights")


def test_resolved_story_films_the_same_film_again(film, run, tmp_path):
    assert run("generate", film / "story.yaml", "-o", tmp_path / "again")[0] == 0
    for name in ("film.mp4", "shot_01.mp4", "shot_02.mp4"):
        again = read_video(tmp_path / "again" / name)
        np.testing.assert_array_equal(again, read_video(film / name))
    assert (tmp_path / "again" / "story.yaml").read_bytes() == (film / "story.yaml").read_bytes()


def test_json_prints_the_manifest_and_nothing_else(run, story, tmp_path):
    status, out, err = run("generate", story, "-o", tmp_path / "film", "--json")
    assert status == 0
    assert json.loads(out)["title"] == "A test"
    assert err == ""


def test_an_approximate_film_is_called_so_and_finishes_no_exact_one(run, refused, story, tmp_path):
    folder, names = tmp_path / "film", ("int8-cache", "no-clean-pass")
    status, _, said = run("generate", story, "-o", folder, "--approximate", *names)
    assert status == 0
    assert "Approximate: int8-cache, no-clean-pass." in said
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["approximate"] == list(names)
    assert manifest["badge"].endswith("approximate: int8-cache, no-clean-pass")
    said = refused("generate", story, "-o", folder, "--resume")
    assert "+int8-cache+no-clean-pass and this is" in said


def test_resume_films_only_what_is_missing(film, run, story, tmp_path, monkeypatch):
    folder = tmp_path / "film"
    run("generate", story, "-o", folder)
    for name in ("film.mp4", "contact.png", "shot_02.mp4", "shot_02.npz", "shot_02.json"):
        (folder / name).unlink()
    first = (folder / "shot_01.mp4").stat().st_mtime_ns
    filmed, real = [], Camera.film
    monkeypatch.setattr(
        Camera,
        "film",
        lambda self, plan, **how: filmed.append(plan.index) or real(self, plan, **how),
    )
    assert run("generate", story, "-o", folder, "--resume")[0] == 0
    assert filmed == [1]
    assert (folder / "shot_01.mp4").stat().st_mtime_ns == first
    np.testing.assert_array_equal(read_video(folder / "film.mp4"), read_video(film / "film.mp4"))


def test_ctrl_c_keeps_finished_shots_and_exits_130(run, story, tmp_path, monkeypatch):
    folder, real = tmp_path / "film", Camera.film

    def stop_in_second_shot(self, plan, **how):
        if plan.index == 1:
            raise KeyboardInterrupt
        return real(self, plan, **how)

    monkeypatch.setattr(Camera, "film", stop_in_second_shot)
    status, _, err = run("generate", story, "-o", folder)
    assert status == 130
    assert "--resume" in err
    assert files(folder) == [
        "manifest.json",
        "shot_01.json",
        "shot_01.mp4",
        "shot_01.npz",
        "story.yaml",
    ]
    monkeypatch.undo()
    assert run("generate", story, "-o", folder, "--resume")[0] == 0
    assert "film.mp4" in files(folder)


def test_a_real_interrupt_stops_a_real_process(story, tmp_path):
    text = story.read_text().replace("chunks: 1", "chunks: 300")
    story.write_text(text)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "shotstream_jax.cli.main",
            "generate",
            story,
            "-o",
            tmp_path / "film",
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    for line in process.stderr:
        if "First frames" in line:
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert files(tmp_path / "film") == ["manifest.json", "story.yaml"]


def test_disk_full_while_writing_a_shot_loses_nothing(run, story, tmp_path, monkeypatch):
    folder, real = tmp_path / "film", shot_files.np.savez

    def full_at_second(file, **arrays):
        if "shot_02" in file.name:
            raise OSError(28, "No space left on device")
        real(file, **arrays)

    monkeypatch.setattr(shot_files.np, "savez", full_at_second)
    status, _, err = run("generate", story, "-o", folder)
    assert status == 2
    assert "No space left on device" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert {"shot_01.json", "shot_01.mp4", "shot_01.npz"} <= set(files(folder))
    assert not {"shot_02.json", "shot_02.npz", "film.mp4"} & set(files(folder))
    monkeypatch.undo()
    assert run("generate", story, "-o", folder, "--resume")[0] == 0


def edited(story, **changes):
    document = yaml.safe_load(story.read_text())
    for key, value in changes.items():
        document[key] = value
    story.write_text(yaml.safe_dump(document))
    return story


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 9}, "version"),
        ({"shots": []}, "shots"),
        ({"shots": [{"caption": ""}]}, "caption"),
        ({"shots": [{"caption": "a", "chunks": 0}]}, "chunks"),
        ({"shots": [{"caption": "word " * 600}]}, "tokens"),
        ({"defaults": {"size": [40, 48]}}, "40"),
        ({"defaults": {"size": [33, 48]}}, "33"),
    ],
)
def test_bad_stories_are_refused_before_anything_is_made(refused, story, tmp_path, changes, said):
    line = refused("generate", edited(story, **changes), "-o", tmp_path / "film")
    assert said in line
    assert not (tmp_path / "film").exists() or files(tmp_path / "film") == []


def test_malformed_story_is_refused_with_its_line(refused, story, tmp_path):
    story.write_text(story.read_text() + "  - caption: [unclosed\n")
    assert "story.yaml:" in refused("generate", story, "-o", tmp_path / "film")


def test_missing_story_is_refused(refused, tmp_path):
    assert "none.yaml" in refused("generate", tmp_path / "none.yaml", "-o", tmp_path / "film")


def test_unknown_checkpoint_is_refused(refused, story, tmp_path):
    line = refused("generate", story, "-o", tmp_path / "film", "--checkpoint", tmp_path / "none")
    assert "none" in line
    assert "convert" in line


def test_full_folder_is_refused_and_left_alone(refused, story, tmp_path):
    folder = tmp_path / "film"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"precious")
    line = refused("generate", story, "-o", folder)
    assert "holiday.jpg" in line
    assert "--resume" not in line
    assert files(folder) == ["holiday.jpg"]


def test_a_begun_film_is_refused_with_the_way_on(film, refused, story):
    before = files(film)
    assert "--resume" in refused("generate", story, "-o", film)
    assert files(film) == before


def test_overwriting_replaces_the_film_and_leaves_anything_else(film, run, story, tmp_path):
    """Kind: --overwrite took a person's own files for the film's, or refused because of them."""
    folder = tmp_path / "film"
    run("generate", story, "-o", folder)
    for name in ("shot_09.mp4", ".shot_03.mp4.part"):
        (folder / name).write_bytes(b"of a longer story")
    for name in ("notes.txt", "shot_notes.json"):
        (folder / name).write_text("mine")
    assert run("generate", story, "-o", folder, "--overwrite")[0] == 0
    assert files(folder) == sorted([*files(film), "notes.txt", "shot_notes.json"])
    assert (folder / "notes.txt").read_text() == "mine"


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"shots": [{"caption": "word " * 600}]}, (), "tokens"),
        ({"defaults": {"size": [40, 48]}}, (), "40"),
        ({"shots": []}, (), "shots"),
        ({}, ("--checkpoint", "none"), "none"),
        ({}, ("--resume",), "exclude"),
    ],
)
def test_overwriting_with_a_mistake_keeps_the_film(
    film, refused, story, tmp_path, changes, options, said
):
    """Kind: --overwrite deleted first and refused after."""
    folder = tmp_path / "film"
    shutil.copytree(film, folder)
    before = content(folder)
    line = refused("generate", edited(story, **changes), "-o", folder, "--overwrite", *options)
    assert said in line
    assert content(folder) == before


def test_overwriting_that_fails_before_a_shot_is_done_keeps_the_film(
    film, run, story, tmp_path, monkeypatch
):
    """Kind: a film was lost to one that never came."""
    folder = tmp_path / "film"
    shutil.copytree(film, folder)
    before = content(folder)

    def full(file, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shot_files.np, "savez", full)
    assert run("generate", story, "-o", folder, "--overwrite")[0] == 2
    assert content(folder) == before


def test_a_file_in_place_of_the_folder_is_refused(refused, story, tmp_path):
    (tmp_path / "film").write_text("")
    assert "film" in refused("generate", story, "-o", tmp_path / "film")


def test_folder_that_cannot_be_written_is_refused(refused, story, tmp_path, monkeypatch):
    # Simulated: to the superuser, whom tests may run as, no folder is read-only.
    def denied(**options):
        raise PermissionError(13, "Permission denied", str(options["dir"] / "probe"))

    monkeypatch.setattr(folder_contents.tempfile, "TemporaryFile", denied)
    line = refused("generate", story, "-o", tmp_path / "film")
    assert "Permission denied" in line
    assert "film" in line


def test_resuming_another_story_is_refused(refused, run, story, tmp_path):
    folder = tmp_path / "film"
    run("generate", story, "-o", folder)
    other = edited(story, shots=[{"caption": "wide shot, it spins."}, {"caption": "b"}])
    line = refused("generate", other, "-o", folder, "--resume")
    assert "caption" in line
    assert "shot_01" in line


def damaged(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swapped(path):
    shutil.copy(path.with_name(path.name.replace("01", "02")), path)


def without_checksums(change):
    """The change, in a folder of release 0.1, which kept none."""

    def changed(path):
        plan = path.with_suffix(".json")
        document = json.loads(plan.read_text())
        del document["files"]
        plan.write_text(json.dumps(document))
        change(path)

    return changed


def not_finite(path):
    with np.load(path) as stored:
        latents = stored["latents"]
    latents[0, 0, 0, 0, 0] = np.nan
    np.savez(path.open("wb"), latents=latents)


def of_another_shape(path):
    np.savez(path.open("wb"), latents=np.zeros((1, 3, 2, 2, 4), np.float32))


def compressed(path):
    with np.load(path) as stored:
        latents = stored["latents"]
    np.savez_compressed(path.open("wb"), latents=latents)


def bare(path):
    np.save(path.open("wb"), np.zeros((1, 3), np.float32))


def endless(path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1099511627776), }"
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("latents.npy", b"\x93NUMPY\x01\x00\x76\x00" + header)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("shot_01.npz", damaged),
        ("shot_01.mp4", damaged),
        ("shot_01.mp4", swapped),
        ("shot_01.npz", swapped),
        ("shot_01.mp4", lambda path: path.unlink()),
        ("shot_01.npz", lambda path: path.write_text("text")),
        ("shot_01.npz", without_checksums(not_finite)),
        ("shot_01.npz", without_checksums(of_another_shape)),
        ("shot_01.npz", without_checksums(compressed)),
        ("shot_01.npz", without_checksums(bare)),
        ("shot_01.npz", without_checksums(endless)),
        ("shot_01.npz", without_checksums(lambda path: path.write_bytes(b"PK\x03\x04 cut"))),
        ("shot_01.json", lambda path: path.write_text("[]")),
        ("shot_01.json", lambda path: path.write_text("null")),
        ("shot_01.json", lambda path: path.write_text("[" * 100_000)),
        ("shot_01.json", lambda path: path.write_text('{"captions": 3, "index": {}}')),
        ("shot_01.json", lambda path: path.write_text('{"context": [7]}')),
        ("shot_01.json", lambda path: path.write_bytes(b"\xff\xfe")),
        ("manifest.json", lambda path: path.write_text("[]")),
        ("manifest.json", lambda path: path.write_text("[" * 100_000)),
        ("story.yaml", lambda path: path.write_text("[")),
    ],
)
def test_a_damaged_film_folder_is_noticed_before_any_work(
    film, refused, story, tmp_path, monkeypatch, name, change
):
    """Kind: finished shots were taken on trust: damaged, swapped or hostile files."""
    folder = tmp_path / "film"
    shutil.copytree(film, folder)
    for suffix in ("json", "mp4", "npz"):
        if change is not swapped or suffix == "json":
            (folder / f"shot_02.{suffix}").unlink()
    change(folder / name)
    before = content(folder)
    monkeypatch.setattr(Camera, "film", lambda *args, **how: pytest.fail("filmed"))
    assert name in refused("generate", story, "-o", folder, "--resume")
    assert content(folder) == before


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"fps": 16}, (), "fps 8 and this is 16"),
        ({"size": [48, 48]}, (), "size [32, 48] and this is [48, 48]"),
        ({"chunks": 2}, (), "chunks 1 and the story says 2"),
        ({}, ("--dtype", "bfloat16"), "dtype float32 and this is bfloat16"),
    ],
)
def test_a_film_is_resumed_in_its_own_format(
    film, refused, run, story, tmp_path, changes, options, said
):
    """Kind: a film was finished in another format than it was begun in."""
    folder = tmp_path / "film"
    shutil.copytree(film, folder)
    (folder / "shot_02.json").unlink()
    before, first = content(folder), story.read_text()
    defaults = {"seed": 3, "size": [32, 48], "fps": 8, "chunks": 1, **changes}
    line = refused("generate", edited(story, defaults=defaults), "-o", folder, "--resume", *options)
    assert said in line
    assert content(folder) == before
    story.write_text(first)
    assert run("generate", story, "-o", folder, "--resume")[0] == 0
    np.testing.assert_array_equal(read_video(folder / "film.mp4"), read_video(film / "film.mp4"))


def test_an_edited_shot_that_was_not_filmed_is_filmed_as_edited(film, run, story, tmp_path):
    """Kind: story.yaml, title and manifest said something else than what the folder films."""
    folder = tmp_path / "film"
    shutil.copytree(film, folder)
    (folder / "shot_02.json").unlink()
    shots = [{"caption": "wide shot, it walks right."}, {"caption": "close shot, it waits."}]
    changed = edited(story, shots=shots, title="Another title")
    assert run("generate", changed, "-o", folder, "--resume")[0] == 0
    assert "it waits" in (folder / "story.yaml").read_text()
    assert manifest_of(folder)["title"] == "Another title"
    again = tmp_path / "again"
    assert run("generate", folder / "story.yaml", "-o", again)[0] == 0
    np.testing.assert_array_equal(read_video(folder / "film.mp4"), read_video(again / "film.mp4"))


def test_a_shorter_story_leaves_nothing_stale(film, run, story, tmp_path):
    """Kind: shots of a longer story stayed beside a shorter one."""
    folder = tmp_path / "film"
    shutil.copytree(film, folder)
    shorter = edited(story, shots=[{"caption": "wide shot, it walks right."}])
    status, _, said = run("generate", shorter, "-o", folder, "--resume")
    assert status == 0
    assert "Shot 2 is of a longer story" in said
    assert not (folder / "shot_02.mp4").exists()
    assert (folder / "takes" / "shot_02_take_0.npz").exists()
    assert len(read_video(folder / "film.mp4")) == len(read_video(folder / "shot_01.mp4"))
    assert manifest_of(folder)["shots"] == ["shot_01.mp4"]


def test_resuming_a_finished_film_changes_nothing(film, run, story, tmp_path):
    folder = tmp_path / "film"
    shutil.copytree(film, folder)
    before = content(folder)
    status, _, said = run("generate", story, "-o", folder, "--resume")
    assert status == 0
    assert "nothing was left to do" in said
    assert content(folder) == before


def test_a_chunk_that_is_not_finite_ends_filming_and_keeps_shots(
    refused, run, story, tmp_path, monkeypatch
):
    """Kind: weights that give NaN filmed black frames without a word."""
    folder, real = tmp_path / "film", Camera.film

    def broken(self, plan, **how):
        for piece in real(self, plan, **how):
            yield dataclasses.replace(piece, finite=(jnp.asarray(plan.index == 0),))

    monkeypatch.setattr(Camera, "film", broken)
    assert "Shot 2, chunk 1" in refused("generate", story, "-o", folder)
    assert "shot_01.json" in files(folder)
    assert "shot_02.json" not in files(folder)
    monkeypatch.undo()
    assert run("generate", story, "-o", folder, "--resume")[0] == 0


@pytest.mark.parametrize("name", ["film-2026-11-25T12:30:00", "x[/y]", "[red]x"])
def test_any_name_of_a_folder_will_do(run, story, tmp_path, monkeypatch, name):
    """Kind: a folder's name was read as a protocol, or as markup."""
    monkeypatch.chdir(tmp_path)
    status, _, said = run("generate", story, "-o", name)
    assert status == 0
    assert f"{name}/film.mp4" in said
    assert (tmp_path / name / "film.mp4").is_file()


def test_options_stand_in_for_what_the_story_says(run, story, tmp_path):
    """Kind: check took settings that generate did not."""
    options = ("--size", 48, 48, "--fps", 12, "--chunks", 1, "--seed", 9)
    status, out, _ = run("generate", story, "-o", tmp_path / "film", *options, "--json")
    assert status == 0
    manifest = json.loads(out)
    assert (manifest["size"], manifest["fps"], manifest["seeds"]) == ([48, 48], 12, [9, 9])
    assert read_video(tmp_path / "film" / "film.mp4").shape[1:3] == (48, 48)


def test_words_that_the_model_does_not_know_are_told(run, story, tmp_path):
    """Kind: words outside a closed vocabulary were filmed as something else, without a word."""
    shots = [{"caption": "wide shot, it walks right."}, {"caption": "close shot, a zeppelin."}]
    _, _, said = run("generate", edited(story, shots=shots), "-o", tmp_path / "film")
    assert re.search(r"Shot 2: the model does not know .*zeppelin", said)
    assert "Shot 1" not in said.split("First frames")[0]


def test_quiet_says_nothing(run, story, tmp_path):
    assert run("generate", story, "-o", tmp_path / "film", "--quiet") == (0, "", "")


def test_an_address_is_no_folder(refused, story, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "gs://bucket/film" in refused("generate", story, "-o", "gs://bucket/film")
    assert files(tmp_path) == ["story.yaml"]


def test_a_shot_is_told_of_when_it_is_on_disk(run, story, tmp_path, monkeypatch):
    """Kind: "Shot N" was printed before it was safe."""
    folder, seen = tmp_path / "film", []

    def line(self, text, *style):
        plans = sorted(path.name for path in folder.glob("shot_*.json"))
        seen.append((text[:6], plans))

    monkeypatch.setattr(ProgressBar, "line", line)
    assert run("generate", story, "-o", folder)[0] == 0
    assert [text for text, _ in seen[-3:]] == ["First ", "Shot 1", "Shot 2"]
    assert [plans for _, plans in seen[-2:]] == [["shot_01.json"], ["shot_01.json", "shot_02.json"]]


THREE = """
version: 2
title: Three
defaults: {seed: 3, size: [48, 80], fps: 8, chunks: 1}
shots:
  - {id: one, caption: "wide shot, it walks right in the meadow."}
  - {id: two, caption: "close shot, it waits in the desert."}
  - {id: three, caption: "medium shot, it walks left in the city."}
"""


@pytest.fixture(scope="module")
def three_shots(tmp_path_factory):
    """A finished film of three shots, and its story; copy the folder before changing it."""
    root = tmp_path_factory.mktemp("three")
    (root / "three.yaml").write_text(THREE)
    assert main(["generate", str(root / "three.yaml"), "-o", str(root / "film")]) == 0
    return root / "three.yaml", root / "film"


def copied(three_shots, tmp_path):
    story, film = three_shots
    shutil.copytree(film, tmp_path / "film")
    return story, tmp_path / "film"


def latents(folder, shot):
    with np.load(folder / f"shot_{shot:02d}.npz") as stored:
        return stored["latents"]


def same_latents(one, other):
    return [np.array_equal(latents(one, k), latents(other, k)) for k in (1, 2, 3)]


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


@pytest.mark.parametrize("options", [(), ("--seed", 9)])
def test_only_films_one_shot_again_and_keeps_the_rest(three_shots, run, tmp_path, options):
    story, folder = copied(three_shots, tmp_path)
    kept = (folder / "shot_03.mp4").read_bytes()
    status, _, said = run("generate", story, "-o", folder, "--resume", "--only", 2, *options)
    assert status == 0
    assert "shot 3" in said
    assert "--from 3" in said
    assert same_latents(folder, three_shots[1]) == [True, False, True]
    assert (folder / "shot_03.mp4").read_bytes() == kept
    old = sorted(path.name for path in (folder / "takes").iterdir())
    assert old == [f"shot_02_take_0.{suffix}" for suffix in ("json", "mp4", "npz")]
    assert manifest_of(folder)["takes"] == [0, 1, 0]
    assert manifest_of(folder)["seeds"] == [3, 9 if options else 3, 3]
    assert manifest_of(folder)["stale"] == ["three"]
    # Said by the folder's story, so that the next command films nothing anew.
    status, _, said = run("generate", story, "-o", folder, "--resume")
    assert status == 0
    assert "Shot 2 is take 1" in said
    assert manifest_of(folder)["stale"] == ["three"]


def test_from_films_on_with_the_new_history(three_shots, run, tmp_path):
    story, folder = copied(three_shots, tmp_path)
    assert run("generate", story, "-o", folder, "--resume", "--from", 2, "--seed", 9)[0] == 0
    assert same_latents(folder, three_shots[1]) == [True, False, False]
    assert manifest_of(folder)["stale"] == []
    assert manifest_of(folder)["takes"] == [0, 1, 1]
    # The folder's story films the same film again.
    again = tmp_path / "again"
    assert run("generate", folder / "story.yaml", "-o", again)[0] == 0
    assert same_latents(folder, again) == [True, True, True]
    np.testing.assert_array_equal(read_video(folder / "film.mp4"), read_video(again / "film.mp4"))


def test_only_then_from_the_next_is_from(three_shots, run, tmp_path):
    story, folder = copied(three_shots, tmp_path)
    run("generate", story, "-o", folder, "--resume", "--only", 2)
    assert run("generate", story, "-o", folder, "--resume", "--from", 3)[0] == 0
    _, other = copied(three_shots, tmp_path / "other")
    run("generate", story, "-o", other, "--resume", "--from", 2)
    assert same_latents(folder, other) == [True, True, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--only", 2), "add --resume"),
        (("--resume", "--only", 4), "Shot 4 of a story of 3"),
        (("--resume", "--only", 0), "Shot 0 of a story of 3"),
        (("--resume", "--only", 2, "--from", 3), "give one of them"),
    ],
)
def test_what_cannot_be_filmed_again_is_refused(three_shots, refused, tmp_path, options, said):
    story, folder = copied(three_shots, tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert said in refused("generate", story, "-o", folder, *options)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_shot_behind_a_missing_one_is_not_filmed_again(three_shots, refused, tmp_path):
    story, folder = copied(three_shots, tmp_path)
    (folder / "shot_01.json").unlink()
    said = refused("generate", story, "-o", folder, "--resume", "--only", 2)
    assert "Shot 1" in said
    assert "--resume first" in said


def test_whole_shots_are_the_same_film(three_shots, run, tmp_path):
    story, folder = three_shots
    assert run("generate", story, "-o", tmp_path / "whole", "--whole-shots")[0] == 0
    assert same_latents(folder, tmp_path / "whole") == [True, True, True]


def test_a_film_begun_by_release_0_1_is_gone_on_with(run, tmp_path):
    """Plans on disk named captions by place until 0.1; the film is the same."""
    story, folder = tmp_path / "story.yaml", tmp_path / "film"
    story.write_text(THREE.replace("version: 2", "version: 1"))
    assert run("generate", story, "-o", folder)[0] == 0
    film = read_video(folder / "film.mp4")
    captions: list[str] = []
    for number in (1, 2, 3):
        path = folder / f"shot_{number:02d}.json"
        plan = json.loads(path.read_text())
        captions.append(plan["caption"])
        names = ("index", "chunks", "seed", "transition", "rope_shot")
        old = {name: plan[name] for name in names}
        old |= {"captions": list(captions), "caption_index": number - 1}
        old["context"] = [
            {"shot": frame["rope_shot"], "frame": frame["source"]["frame"]}
            for frame in plan["context"]
        ]
        path.write_text(json.dumps(old))
    (folder / "shot_03.json").unlink()
    assert run("generate", story, "-o", folder, "--resume")[0] == 0
    np.testing.assert_array_equal(read_video(folder / "film.mp4"), film)


TEACHER = ("--role", "teacher", "--steps", 2)


def test_the_teacher_films_too_and_goes_on_with_its_own_films_only(
    three_shots, run, refused, tmp_path
):
    story, folder = three_shots[0], tmp_path / "film"
    assert run("generate", story, "-o", folder, *TEACHER)[0] == 0
    assert same_latents(folder, three_shots[1]) == [False] * 3
    first = [latents(folder, k) for k in (1, 2, 3)]
    assert all(np.all(np.isfinite(shot)) for shot in first)
    for suffix in ("json", "mp4", "npz"):
        (folder / f"shot_02.{suffix}").unlink()
    for other in ((), (*TEACHER, "--guidance", 3), ("--role", "teacher")):
        assert "+teacher-euler-2-6" in refused("generate", story, "-o", folder, "--resume", *other)
    assert run("generate", story, "-o", folder, "--resume", *TEACHER)[0] == 0
    np.testing.assert_array_equal(latents(folder, 2), first[1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--steps", 3), "--role teacher"),
        (("--solver", "unipc"), "--role teacher"),
        ((*TEACHER, "--whole-shots"), "--whole-shots"),
        ((*TEACHER, "--approximate", "int8-cache"), "--approximate"),
        (("--role", "teacher", "--steps", 0), "0 steps"),
    ],
)
def test_options_of_the_other_role_are_refused(three_shots, refused, tmp_path, options, said):
    assert said in refused("generate", three_shots[0], "-o", tmp_path / "film", *options)


def test_a_lora_that_is_not_there_is_said_before_any_weights_are_read(refused, story, tmp_path):
    """Kind: --lora when filming, with a strength; messages say what is there."""
    said = refused("generate", story, "-o", tmp_path / "film", "--lora", tmp_path / "no.pt:0.5")
    assert f"There is no LoRA {tmp_path / 'no.pt'}" in said
    assert "FILE:STRENGTH" in refused(
        "generate", story, "-o", tmp_path / "film", "--lora", tmp_path / "no.pt:much"
    )
