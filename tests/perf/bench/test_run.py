"""How things are measured: counts and sums that hold on any machine, and no times."""

import dataclasses
import json
import subprocess

import jax
import numpy as np
import pytest

from shotstream_jax.perf.bench.end_to_end import Delivery, end_to_end
from shotstream_jax.perf.bench.memory import peak_memory
from shotstream_jax.perf.bench.provenance import git_commit, provenance
from shotstream_jax.perf.bench.run import BenchSettings, bench_story, measure_film, total_peak
from shotstream_jax.perf.bench.split import Call, Recorder, split, split_document
from shotstream_jax.perf.bench.timing import rate, spread
from shotstream_jax.perf.plan.film_cost import call_flops
from shotstream_jax.perf.program_cache import program_cache
from shotstream_jax.rollout.stream import Camera, plan_for

SETTINGS = BenchSettings(shots=2, warmup=1)


@pytest.fixture(scope="module")
def encoded():
    return []


@pytest.fixture(scope="module")
def measured(networks, shape, encoded):
    return measure_film(networks, shape, SETTINGS, encoded.append)


def test_every_frame_of_the_story_is_delivered(measured, shape):
    arrived, frames = measured["end_to_end"], SETTINGS.shots * shape.video_frames
    assert measured["film"]["frames"] == arrived["frames"] == frames
    assert arrived["fps"] * arrived["seconds"] == pytest.approx(frames)
    assert 0 < arrived["time_to_first_frame"] < arrived["seconds"]
    assert sum(arrived["shot_seconds"]) == pytest.approx(arrived["seconds"])
    assert arrived["cut_latency"]["count"] == SETTINGS.shots - 1
    assert arrived["chunk_interval"]["count"] == SETTINGS.shots * (shape.chunks - 1)


def test_the_split_names_every_part(measured, shape):
    parts = measured["split"]["parts"]
    calls = {name: part["calls"] for name, part in parts.items()}
    chunks, frames = shape.chunks, shape.chunks * shape.config.rollout.window.chunk
    assert calls == {
        "text": 2,
        "caption keys": 2,
        "context encode": shape.config.rollout.window.context,
        "context pass": 2,
        "noise": 2 * chunks,
        "denoise": 2 * chunks,
        "clean pass": 2 * (chunks - 1),
        "decode": 2 * frames,
        "to video": 2 * frames,
        "host copy": 2 * chunks,
        "mp4 encode": 2,
    }
    assert len(parts["denoise"]["seconds_by_chunk"]) == chunks
    assert len(parts["clean pass"]["seconds_by_chunk"]) == chunks - 1
    total = sum(part["seconds"] for part in parts.values()) + measured["split"]["other_seconds"]
    assert total == pytest.approx(measured["split"]["seconds"])


def test_merged_passes_are_counted_as_what_they_stand_for(networks, shape):
    """A film of merged passes takes as many operations as another, in fewer calls."""
    merging = dataclasses.replace(networks, merged_passes=True)
    story = bench_story(shape, SETTINGS, "counted")
    apart, merged = (
        split(filming, shape, story, lambda chunks: None)[0] for filming in (networks, merging)
    )
    assert sum(call.flops for call in merged) == sum(call.flops for call in apart)
    assert len(merged) == len(apart) - SETTINGS.shots * shape.chunks


def test_what_is_achieved_is_counted_by_the_sizes(measured, shape):
    achieved = measured["split"]["achieved"]
    denoise = 2 * sum(call_flops(shape, "denoise", chunk) for chunk in range(shape.chunks))
    first, later = (call_flops(shape, "decode", begins=begins) for begins in (True, False))
    assert achieved["denoise"]["tflop"] == pytest.approx(denoise / 1e12)
    # Each shot is a cut, and begins with a flat first frame.
    frames = shape.chunks * shape.config.rollout.window.chunk
    assert achieved["decode"]["tflop"] == pytest.approx(2 * (first + (frames - 1) * later) / 1e12)
    seconds = measured["split"]["parts"]["denoise"]["seconds"]
    assert achieved["denoise"]["tflops_per_second"] * seconds == pytest.approx(denoise / 1e12)
    # A CPU has no published peak here.
    assert all(rate["share_of_peak"] is None for rate in achieved.values())


def test_videos_are_made_of_whole_shots(measured, encoded, shape):
    assert len(encoded) == SETTINGS.shots
    for shot in encoded:
        frames = np.concatenate(shot)
        assert (frames.dtype, frames.shape) == (np.uint8, (shape.video_frames, *shape.size, 3))


def test_compilation_is_measured_cold_warm_and_ready(measured):
    compiled = measured["compile"]
    assert min(compiled[f"{name}_seconds"] for name in ("cold", "warm", "ready")) > 0
    assert "clear_caches" in compiled["definition"]
    json.dumps(measured)


def test_memory_is_that_of_the_host_where_devices_do_not_count(measured):
    assert measured["memory"]["device_peak_bytes"] is None
    assert measured["memory"]["host_peak_bytes"] > 50e6
    held = bytearray(200 << 20)
    held[::4096] = b"x" * len(held[::4096])
    assert peak_memory()["host_peak_bytes"] > len(held)


def test_measuring_changes_no_film(networks, shape):
    story = bench_story(shape, BenchSettings(shots=1), "same")
    plan = plan_for(networks, story, 0)
    recorder = Recorder(shape)
    films = [
        np.concatenate([np.asarray(piece.frames) for piece in camera.film(plan)])
        for camera in (Camera(networks, shape.size), Camera(networks, shape.size, run=recorder))
    ]
    np.testing.assert_array_equal(films[0], films[1])
    assert {call.part for call in recorder.calls} >= {"text", "denoise", "decode"}


def test_captions_differ_between_films(shape):
    """Text that was encoded before would cost nothing."""
    films = [bench_story(shape, SETTINGS, label) for label in ("warm-up 0", "measured")]
    captions = [shot.caption for story in films for shot in story.shots]
    assert len(set(captions)) == 4


def test_arrivals_become_rates_and_waits():
    times = [(0, 5, 1.0), (0, 8, 1.5), (0, 8, 2.5), (1, 5, 4.0), (1, 8, 4.5), (1, 8, 5.0)]
    found = end_to_end([Delivery(shot=s, frames=n, at=at) for s, n, at in times])
    assert (found.frames, found.seconds, found.fps) == (42, 5.0, 8.4)
    assert found.time_to_first_frame == 1.0
    assert found.cut_latency == spread([1.5])
    assert found.chunk_interval == spread([0.5, 1.0, 0.5, 0.5])
    assert found.shot_seconds == (2.5, 2.5)


def test_a_single_chunk_has_no_intervals():
    found = end_to_end([Delivery(shot=0, frames=5, at=2.0)])
    assert (found.cut_latency, found.chunk_interval) == (None, None)
    with pytest.raises(ValueError, match="Nothing was delivered"):
        end_to_end([])


def test_spreads_are_percentiles():
    found = spread([float(n) for n in range(101)])
    assert found is not None
    assert (found.p50, found.p95, found.max, found.count) == (50, 95, 100, 101)


def test_a_share_of_peak_needs_a_peak():
    assert rate(2 * 10**12, 4.0, 1e12)["share_of_peak"] == 0.5
    assert rate(2 * 10**12, 4.0, None) == {
        "tflop": 2.0,
        "tflops_per_second": 0.5,
        "share_of_peak": None,
    }
    document = split_document([Call(part="decode", chunk=0, seconds=2.0, flops=10**12)], 3.0, 1e12)
    assert document["achieved"]["decode"]["share_of_peak"] == 0.5
    assert document["other_seconds"] == 1.0


def test_the_peak_is_that_of_all_devices_filmed_on(networks, monkeypatch):
    monkeypatch.setattr("shotstream_jax.perf.bench.run.peak_flops", lambda kind: 7.0)
    assert total_peak(networks) == 7.0
    assert total_peak(dataclasses.replace(networks, mesh=None)) == 7.0


@pytest.mark.parametrize("changes", [{"shots": 0}, {"warmup": -1}])
def test_settings_that_measure_nothing_are_refused(changes):
    with pytest.raises(ValueError, match="1 shot or more"):
        BenchSettings(**changes)


def test_programs_are_kept_elsewhere_for_a_while(tmp_path):
    before = jax.config.values["jax_compilation_cache_dir"]
    with program_cache(tmp_path):
        jax.clear_caches()
        jax.jit(lambda x: x * 3 + 1)(1.0)
        assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path)
    assert jax.config.values["jax_compilation_cache_dir"] == before


def test_a_result_says_where_it_comes_from(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_some_flag")
    found = provenance(["shotstream", "bench"])
    assert found["device"] == jax.devices()[0].device_kind
    assert {"jax", "jaxlib", "python", "shotstream-jax"} <= found["versions"].keys()
    assert found["command"] == ["shotstream", "bench"]
    assert found["flags"]["XLA_FLAGS"] == "--xla_some_flag"
    json.dumps(found)


def test_the_commit_is_that_of_the_checkout_a_file_belongs_to(tmp_path):
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    file, stranger = tmp_path / "a.py", tmp_path / "b.py"
    for path in (file, stranger):
        path.write_text("")
    assert git_commit(file) is None
    git("init", "-q")
    git("add", "a.py")
    git("commit", "-qm", "a")
    head = git("rev-parse", "HEAD")
    assert (git_commit(file), git_commit(stranger)) == (head, None)
    file.write_text("changed")
    assert git_commit(file) == f"{head}+"
