"""Filming a story into a folder: the camera, the reel and the clock together."""

import dataclasses
import pathlib
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from shotstream_jax.directing.reel import Reel, open_reel
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.stream import Camera, FilmedChunk, one_ahead, plan_for
from shotstream_jax.story import Story


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """Where filming stands, told after every chunk.

    Attributes:
      piece: the chunk that was just delivered and recorded.
      shots: of the story.
      chunks_done: chunks recorded so far, of all shots.
      chunks_left: chunks still to be filmed.
      frames: video frames delivered by this run.
      seconds: since this run began, compilation included.
      steady_seconds: since the first chunk was delivered.
      steady_frames: video frames delivered since then.
    """

    piece: FilmedChunk
    shots: int
    chunks_done: int
    chunks_left: int
    frames: int
    seconds: float
    steady_seconds: float
    steady_frames: int

    @property
    def fps(self) -> float | None:
        """Delivered frames per second, once there is more than the first chunk to tell by."""
        return self.steady_frames / self.steady_seconds if self.steady_frames else None

    @property
    def seconds_left(self) -> float | None:
        """Time left at the rate so far, once there is one."""
        if not self.steady_frames:
            return None
        return self.chunks_left * self.steady_seconds / max(1, self.chunks_done - 1)


Watch = Callable[[Progress], None]


def film_story(
    networks: Networks,
    story: Story,
    folder: pathlib.Path | str,
    *,
    digest: str = "",
    badge: str = "",
    facts: Mapping[str, Any] | None = None,
    resume: bool = False,
    watch: Watch = lambda progress: None,
) -> Reel:
    """Film a story into a folder, shot by shot; a finished shot is never lost.

    Args:
      networks: what to film with.
      story: what to film.
      folder: new or empty; or, to resume, the folder it was begun in.
      digest: of the model, so that another one does not finish the film.
      badge: what must not be overlooked, such as "random weights".
      facts: more lines for the manifest.
      resume: go on after the last finished shot.
      watch: told after every chunk.

    Raises:
      ReelError: a folder that is not empty, or that holds another film.
      ValueError: a story that these networks cannot film, such as a caption that is too long.
      OSError: no room, or no permission.
    """
    story = story.resolved()
    plans = [plan_for(networks, story, index) for index in range(len(story.shots))]
    camera = Camera(networks, story.defaults.size)
    for plan in plans:
        # All captions before any work: a caption that is too long must not end a film half-way.
        networks.encode_text([plan.captions[plan.caption_index]])
    reel = open_reel(pathlib.Path(folder), story, model=digest, badge=badge, resume=resume)
    finished = reel.finished()
    for plan in plans[:finished]:
        reel.check(plan)
    if finished < len(plans):
        for plan in plans[:finished]:
            # Nobody looks at these frames again: each is decoded for what later shots will see.
            for _ in camera.remember(plan, jax.numpy.asarray(reel.latents(plan.index))):
                pass
    clock = _Clock(chunks=sum(plan.chunks for plan in plans[finished:]), shots=len(plans))
    for plan in plans[finished:]:
        with reel.shooting(plan) as take:
            for piece in one_ahead(camera.film(plan)):
                watch(clock.tick(piece, take.add(piece)))
        clock.end_shot(plan.index)
    reel.finish(
        {**(facts or {}), **_versions(), "seeds": _seeds(story), "timings": clock.timings()}
    )
    return reel


class _Clock:
    """Counts what is delivered, and when."""

    def __init__(self, chunks: int, shots: int):
        self.chunks, self.shots = chunks, shots
        self.began = self.shot_began = time.perf_counter()
        self.first: float | None = None
        self.done = self.frames = self.first_frames = 0
        self.shot_seconds: dict[str, float] = {}

    def tick(self, piece: FilmedChunk, frames: int) -> Progress:
        now = time.perf_counter()
        self.done += 1
        self.frames += frames
        if self.first is None:
            self.first, self.first_frames = now, frames
        return Progress(
            piece=piece,
            shots=self.shots,
            chunks_done=self.done,
            chunks_left=self.chunks - self.done,
            frames=self.frames,
            seconds=now - self.began,
            steady_seconds=now - self.first,
            steady_frames=self.frames - self.first_frames,
        )

    def end_shot(self, index: int) -> None:
        now = time.perf_counter()
        self.shot_seconds[f"shot_{index + 1:02d}"] = round(now - self.shot_began, 3)
        self.shot_began = now

    def timings(self) -> dict[str, Any]:
        """Seconds of this run: to the first frames, of each shot, and of all."""
        first = None if self.first is None else round(self.first - self.began, 3)
        return {
            "frames": self.frames,
            "first_frames_after": first,
            "shots": self.shot_seconds,
            "total": round(time.perf_counter() - self.began, 3),
        }


def _seeds(story: Story) -> list[int | None]:
    return [shot.seed for shot in story.shots]


def _versions() -> dict[str, Any]:
    return {
        "device": jax.devices()[0].device_kind,
        "versions": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
        },
    }
