"""Time of a film by part: every part of the camera's work is waited for, one after another.

The camera and its programs are the ones that film; only its `run` waits for the device before and
after each part. Parts overlap when filming in earnest, so they add up to more than a film takes.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from shotstream_jax.perf.bench.timing import rate
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.perf.plan.film_cost import call_flops
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.programs import Part
from shotstream_jax.rollout.stream import Camera, plan_for
from shotstream_jax.story import Story
from shotstream_jax.typing import UInt8

EncodeVideo = Callable[[Sequence[UInt8[np.ndarray, "video_frame height width 3"]]], None]
"""Encodes the chunks of a shot to a temporary video file."""

_DENOISING = ("denoise", "context pass and denoise", "clean pass and denoise")
"""Stages that film one chunk more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A timed call of one part.

    Attributes:
      part: its name.
      chunk: number of the chunk, for parts that attend to more keys with every chunk.
      seconds: from ready inputs to ready results.
      flops: operations by the sizes alone, 0 where none are counted.
    """

    part: str
    chunk: int
    seconds: float
    flops: int = 0


class Recorder:
    """A camera's `run` that waits for the device and records every call."""

    def __init__(self, shape: FilmShape):
        self.calls: list[Call] = []
        self._shape = shape
        self._filmed = 0
        self._begins = True

    def __call__(
        self, part: Part, program: Callable[..., Any], *inputs: Any, **settings: Any
    ) -> Any:
        """Run one part and record its seconds."""
        # Inputs may still be on their way: their time belongs to the part that makes them.
        jax.block_until_ready(inputs)
        began = time.perf_counter()
        result = jax.block_until_ready(program(*inputs, **settings))
        seconds = time.perf_counter() - began
        if part in ("context pass", "context pass and denoise"):
            self._filmed, self._begins = 0, True
        denoises = part in _DENOISING
        # What is not denoising belongs to the chunk denoised last: its clean pass, its decoding.
        chunk = max(self._filmed - (not denoises), 0)
        flops = call_flops(self._shape, part, chunk, begins=self._begins)
        self.calls.append(Call(part=part, chunk=chunk, seconds=seconds, flops=flops))
        self._filmed += denoises
        self._begins = self._begins and part != "decode"
        return result

    def add(self, part: str, seconds: float) -> None:
        """Record a call that was timed by the caller."""
        self.calls.append(Call(part=part, chunk=max(self._filmed - 1, 0), seconds=seconds))


def split(
    networks: Networks, shape: FilmShape, story: Story, encode_video: EncodeVideo
) -> tuple[list[Call], float]:
    """Film a story part by part; returns the calls, and the seconds of the whole."""
    recorder = Recorder(shape)
    camera = Camera(networks, story.defaults.size, run=recorder)
    began = time.perf_counter()
    for index in range(len(story.shots)):
        shot = []
        for piece in camera.film(plan_for(networks, story, index)):
            frames = jax.block_until_ready(piece.frames)
            shot.append(_timed(recorder, "host copy", np.asarray, frames))
        _timed(recorder, "mp4 encode", encode_video, shot)
    return recorder.calls, time.perf_counter() - began


def split_document(calls: Sequence[Call], seconds: float, peak: float | None) -> dict[str, Any]:
    """The split as JSON: seconds of every part, in the order in which parts first ran."""
    parts = {call.part: [c for c in calls if c.part == call.part] for call in calls}
    return {
        "seconds": seconds,
        # Python between parts: dispatch, planning, slicing.
        "other_seconds": seconds - sum(call.seconds for call in calls),
        "parts": {name: _part_document(name, of_part) for name, of_part in parts.items()},
        "achieved": {
            name: rate(sum(c.flops for c in of_part), sum(c.seconds for c in of_part), peak)
            for name, of_part in parts.items()
            if any(c.flops for c in of_part)
        },
    }


def _part_document(name: str, calls: Sequence[Call]) -> dict[str, Any]:
    seconds = sum(call.seconds for call in calls)
    document: dict[str, Any] = {
        "calls": len(calls),
        "seconds": seconds,
        "seconds_per_call": seconds / len(calls),
    }
    # The passes that see one chunk more each time; all others take the same for every chunk.
    if name in ("denoise", "clean pass", "clean pass and denoise"):
        document["seconds_by_chunk"] = _by_chunk(calls)
    return document


def _by_chunk(calls: Sequence[Call]) -> list[float]:
    """Mean seconds of the calls for each chunk number."""
    chunks = sorted({call.chunk for call in calls})
    return [float(np.mean([c.seconds for c in calls if c.chunk == chunk])) for chunk in chunks]


def _timed(recorder: Recorder, part: str, function: Callable[..., Any], *inputs: Any) -> Any:
    began = time.perf_counter()
    result = function(*inputs)
    recorder.add(part, time.perf_counter() - began)
    return result
