"""Counts and times of a film in the making."""

import dataclasses
import time
from typing import Any

from shotstream_jax.progress import RateMeter, seconds_left
from shotstream_jax.rollout.stream import FilmedChunk


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmingProgress:
    """Progress after a chunk.

    Attributes:
      piece: the chunk that was just recorded.
      shots: of the story.
      chunks_done: chunks recorded by this run, of all shots.
      chunks_left: chunks still to be filmed.
      frames: video frames recorded by this run.
      shot_frames: video frames of this shot so far.
      seconds: since this run began, compilation included.
      shot_seconds: since this shot began.
      fps: video frames per second since the first chunk; `None` before the second.
      seconds_left: time left at the rate so far, once there is one.
    """

    piece: FilmedChunk
    shots: int
    chunks_done: int
    chunks_left: int
    frames: int
    shot_frames: int
    seconds: float
    shot_seconds: float
    fps: float | None
    seconds_left: float | None


class Timings:
    """Counts and times what is recorded, for the progress and for the manifest."""

    def __init__(self, chunks: int, shots: int):
        self.chunks, self.shots = chunks, shots
        self.began = self.shot_began = time.perf_counter()
        self.first: float | None = None
        self.done = self.frames = self.frames_before_shot = 0
        # Two rates: a shot's first chunk has fewer frames than its others, and takes as long.
        self.chunk_rate, self.frame_rate = RateMeter(), RateMeter()
        self.shot_seconds: dict[str, float] = {}

    def record(self, piece: FilmedChunk, frames: int) -> FilmingProgress:
        """Count a chunk of some video frames."""
        now = time.perf_counter()
        self.done += 1
        self.frames += frames
        self.chunk_rate.count()
        self.frame_rate.count(frames)
        if self.first is None:
            self.first = now
        left = self.chunks - self.done
        progress = FilmingProgress(
            piece=piece,
            shots=self.shots,
            chunks_done=self.done,
            chunks_left=left,
            frames=self.frames,
            shot_frames=self.frames - self.frames_before_shot,
            seconds=now - self.began,
            shot_seconds=now - self.shot_began,
            fps=self.frame_rate.rate,
            seconds_left=seconds_left(left, self.chunk_rate.rate),
        )
        if piece.ends_shot:
            name = f"shot_{piece.plan.index + 1:02d}"
            self.shot_seconds[name] = round(progress.shot_seconds, 3)
            self.shot_began, self.frames_before_shot = now, self.frames
        return progress

    def as_json(self) -> dict[str, Any]:
        """Seconds of this run: to the first frames, of each shot, and of all."""
        first = None if self.first is None else round(self.first - self.began, 3)
        return {
            "frames": self.frames,
            "first_frames_after": first,
            "shots": self.shot_seconds,
            "total": round(time.perf_counter() - self.began, 3),
        }
