"""Films on disk: whole or not there, the same film each time, joined without loss."""

import re
import signal
import subprocess
import sys

import av
import numpy as np
import pytest

from shotstream_jax.directing.video import Mp4Writer, concatenate, read_video

SIZE = (64, 96)
FPS = 8
NEVER_SEEN = 6
"""Largest difference, of 255, that an eye does not notice in a flat colour."""


def drifting_bar(frames: int, start: int = 0) -> np.ndarray:
    """A blue bar on red, moving by 4 pixels a frame."""
    film = np.full((frames, *SIZE, 3), (226, 44, 52), np.uint8)
    for index in range(frames):
        left = 4 * (start + index) % (SIZE[1] - 16)
        film[index, :, left : left + 16] = (38, 84, 226)
    return film


def noise(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, *SIZE, 3), dtype=np.uint8)


def write(path, frames, **options):
    with Mp4Writer(path, fps=FPS, size=SIZE, **options) as film:
        film.write(frames)
    return path


FILM_ON_A_FULL_DISK = """
import pathlib, resource, signal, sys
import numpy as np
from shotstream_jax.directing.video import Mp4Writer

path, limit = pathlib.Path(sys.argv[1]), int(sys.argv[2])
frames = np.random.default_rng(0).integers(0, 256, (24, 64, 96, 3), dtype=np.uint8)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with Mp4Writer(path, fps=8, size=(64, 96), crf=1) as film:
        film.write(frames)
except OSError as full:
    sys.exit(f"OSError: {full}")
"""
"""A program of its own: a limit on this process would cut off what pytest writes, too."""


class TestMp4Writer:
    def test_read_back_is_what_was_written(self, tmp_path):
        frames = drifting_bar(21)
        read = read_video(write(tmp_path / "film.mp4", frames))
        assert read.shape == frames.shape
        # Chroma is stored for 2 x 2 pixels: judge away from the bar's edges.
        for index in range(21):
            left = 4 * index % (SIZE[1] - 16)
            inside = read[index, :, left + 4 : left + 12].astype(int)
            assert np.abs(inside - (38, 84, 226)).max() <= NEVER_SEEN
            outside = read[index, :, [left - 4, (left + 20) % SIZE[1]]].astype(int)
            assert np.abs(outside - (226, 44, 52)).max() <= NEVER_SEEN

    def test_format_is_what_players_expect(self, tmp_path):
        path = write(tmp_path / "film.mp4", drifting_bar(5))
        with av.open(str(path)) as film:
            stream = film.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert stream.codec_context.pix_fmt == "yuv420p"
            assert (stream.height, stream.width) == SIZE
            assert stream.average_rate == FPS
            assert stream.frames == 5
        content = path.read_bytes()
        assert content.index(b"moov") < content.index(b"mdat")

    def test_chunks_and_whole_make_the_same_film(self, tmp_path):
        frames = drifting_bar(21)
        whole = write(tmp_path / "whole.mp4", frames)
        with Mp4Writer(tmp_path / "chunks.mp4", fps=FPS, size=SIZE) as film:
            for start in range(0, 21, 4):
                film.write(frames[start : start + 4])
        assert film.frames == 21
        # Not of the bytes: the encoder now and then writes one picture in a byte more.
        np.testing.assert_array_equal(read_video(tmp_path / "chunks.mp4"), read_video(whole))

    def test_crf_trades_size_for_quality(self, tmp_path):
        frames = noise(8)
        fine = write(tmp_path / "fine.mp4", frames, crf=10)
        coarse = write(tmp_path / "coarse.mp4", frames, crf=40)
        assert coarse.stat().st_size < fine.stat().st_size
        wanted = frames.astype(int)
        assert np.abs(read_video(fine) - wanted).mean() < np.abs(read_video(coarse) - wanted).mean()

    def test_nothing_under_the_final_name_until_the_end(self, tmp_path):
        path = tmp_path / "film.mp4"
        with Mp4Writer(path, fps=FPS, size=SIZE) as film:
            film.write(noise(30))
            assert not path.exists()
        assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]

    def test_a_failing_block_keeps_the_older_file(self, tmp_path):
        path = write(tmp_path / "film.mp4", drifting_bar(3))
        before = path.read_bytes()

        def fail_while_filming() -> None:
            with Mp4Writer(path, fps=FPS, size=SIZE) as film:
                film.write(noise(30))
                raise KeyError("camera")

        with pytest.raises(KeyError, match="camera"):
            fail_while_filming()
        assert path.read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]

    def test_a_killed_process_leaves_no_film(self, tmp_path):
        path = tmp_path / "film.mp4"
        program = (
            "import os, signal, sys, numpy as np\n"
            "from shotstream_jax.directing.video import Mp4Writer\n"
            "with Mp4Writer(sys.argv[1], fps=8, size=(64, 96)) as film:\n"
            "    film.write(np.zeros((30, 64, 96, 3), np.uint8))\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
        assert ended.returncode == -signal.SIGKILL
        assert not path.exists()
        # The next attempt removes what the crash left.
        write(path, drifting_bar(3))
        assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]

    @pytest.mark.parametrize("limit", [4_000, 100_000, 200_000], ids=["start", "middle", "end"])
    def test_a_full_disk_says_where_and_keeps_finished_films(self, tmp_path, limit):
        finished = write(tmp_path / "s1.mp4", noise(24), crf=1)
        before = finished.read_bytes()
        assert len(before) > limit, "the limit must stop the second film"
        program = [sys.executable, "-c", FILM_ON_A_FULL_DISK, tmp_path / "film.mp4", str(limit)]
        ended = subprocess.run(program, capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert re.search(r"OSError: .*film\.mp4 takes more than [\d,]+ bytes", ended.stderr)
        assert str(tmp_path) in ended.stderr
        assert "free" in ended.stderr
        assert [file.name for file in tmp_path.iterdir()] == ["s1.mp4"]
        assert finished.read_bytes() == before

    def test_no_frames_is_refused(self, tmp_path):
        with (
            pytest.raises(ValueError, match="No frames were written"),
            Mp4Writer(tmp_path / "film.mp4", fps=FPS, size=SIZE),
        ):
            pass
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("size", [(63, 96), (64, 97), (0, 96)])
    def test_odd_sizes_are_refused_with_both_values(self, tmp_path, size):
        with pytest.raises(ValueError, match=f"{size[0]} x {size[1]}"):
            Mp4Writer(tmp_path / "film.mp4", fps=FPS, size=size)

    @pytest.mark.parametrize("options", [{"fps": 0}, {"fps": 8, "crf": 0}, {"fps": 8, "crf": 52}])
    def test_impossible_settings_are_refused(self, tmp_path, options):
        with pytest.raises(ValueError, match=r"fps \d+ must be .* crf"):
            Mp4Writer(tmp_path / "film.mp4", size=SIZE, **options)

    def test_frames_of_another_size_are_refused(self, tmp_path):
        with (
            pytest.raises(ValueError, match=r"64 x 96.*32 x 96"),
            Mp4Writer(tmp_path / "film.mp4", fps=FPS, size=SIZE) as film,
        ):
            film.write(np.zeros((1, 32, 96, 3), np.uint8))

    def test_writing_outside_the_block_is_refused(self, tmp_path):
        film = Mp4Writer(tmp_path / "film.mp4", fps=FPS, size=SIZE)
        with pytest.raises(ValueError, match="not open"):
            film.write(drifting_bar(1))


class TestConcatenate:
    def test_pictures_are_those_of_the_parts(self, tmp_path):
        lengths = (9, 1, 21)
        parts = [
            write(tmp_path / f"s{index}.mp4", drifting_bar(length, start=7 * index))
            for index, length in enumerate(lengths)
        ]
        concatenate(parts, tmp_path / "film.mp4")
        wanted = np.concatenate([read_video(part) for part in parts])
        np.testing.assert_array_equal(read_video(tmp_path / "film.mp4"), wanted)

    def test_time_runs_evenly_across_the_joins(self, tmp_path):
        parts = [write(tmp_path / f"s{n}.mp4", drifting_bar(n)) for n in (9, 4, 12)]
        concatenate(parts, tmp_path / "film.mp4")
        with av.open(str(tmp_path / "film.mp4")) as film:
            times = [frame.time for frame in film.decode(video=0)]
            assert film.streams.video[0].frames == 25
        np.testing.assert_allclose(times, np.arange(25) / FPS, atol=1e-6)

    def test_one_of_the_parts_may_be_replaced(self, tmp_path):
        parts = [write(tmp_path / f"s{index}.mp4", drifting_bar(5)) for index in range(2)]
        concatenate(parts, parts[0])
        assert len(read_video(parts[0])) == 10

    def test_nothing_to_join_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="Nothing to join"):
            concatenate([], tmp_path / "film.mp4")

    def test_other_formats_are_refused_with_both_values(self, tmp_path):
        first = write(tmp_path / "first.mp4", drifting_bar(5))
        with Mp4Writer(tmp_path / "fast.mp4", fps=16, size=SIZE) as fast:
            fast.write(drifting_bar(5))
        with Mp4Writer(tmp_path / "small.mp4", fps=FPS, size=(32, 32)) as small:
            small.write(np.zeros((5, 32, 32, 3), np.uint8))
        coarse = write(tmp_path / "coarse.mp4", drifting_bar(5), crf=40)
        for other, complaint in (
            (fast.path, "rate, 8 and 16"),
            (small.path, r"size, \(64, 96\) and \(32, 32\)"),
            (coarse, "other settings"),
        ):
            with pytest.raises(ValueError, match=complaint):
                concatenate([first, other], tmp_path / "film.mp4")
            assert not (tmp_path / "film.mp4").exists()

    def test_a_file_that_is_no_film_is_named(self, tmp_path):
        bad = tmp_path / "bad.mp4"
        bad.write_bytes(b"not a film")
        with pytest.raises(ValueError, match=r"bad\.mp4 is not a film"):
            concatenate([bad], tmp_path / "film.mp4")

    def test_a_disk_that_is_too_small_is_refused_before_work_begins(self, tmp_path, monkeypatch):
        part = write(tmp_path / "s1.mp4", drifting_bar(9))
        usage = type("Usage", (), {"free": 10})
        monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
        with pytest.raises(OSError, match=f"{part.stat().st_size:,} bytes and .* has 10 free"):
            concatenate([part], tmp_path / "film.mp4")
        assert [file.name for file in tmp_path.iterdir()] == ["s1.mp4"]
