"""Delivery of a film: frames a second, time to the first frame, gap at a cut, chunk interval.

A frame counts when it is on the host as 8-bit RGB. Text encoding, context and everything else that
a shot takes is in these times; chunks are requested one ahead of being read, as when filming.
"""

import dataclasses
import itertools
import time
from collections.abc import Sequence

import numpy as np

from shotstream_jax.perf.bench.timing import Spread, spread
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.stream import one_ahead, stream_story
from shotstream_jax.story import Story


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delivery:
    """A chunk that arrived on the host.

    Attributes:
      shot: it belongs to.
      frames: video frames in it.
      at: seconds since the film was requested.
    """

    shot: int
    frames: int
    at: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """Delivery times of a film, in seconds.

    Attributes:
      fps: delivered frames per second, from the request to the last frame.
      frames: delivered.
      seconds: from the request to the last frame.
      time_to_first_frame: from the request to the first frames.
      cut_latency: from the last frames of a shot to the first of the next.
      chunk_interval: from chunk to chunk within a shot.
      shot_seconds: of each shot, from the last frame of the one before.
    """

    fps: float
    frames: int
    seconds: float
    time_to_first_frame: float
    cut_latency: Spread | None
    chunk_interval: Spread | None
    shot_seconds: tuple[float, ...]


def deliver_film(networks: Networks, story: Story) -> list[Delivery]:
    """Film a story, copy its frames to the host, and record when each chunk arrived."""
    deliveries = []
    began = time.perf_counter()
    for piece in one_ahead(stream_story(networks, story)):
        # The copy waits for the device: without it only the dispatch would be timed.
        frames = len(np.asarray(piece.frames))
        at = time.perf_counter() - began
        deliveries.append(Delivery(shot=piece.plan.index, frames=frames, at=at))
    return deliveries


def end_to_end(deliveries: Sequence[Delivery]) -> EndToEnd:
    """Speed and latencies of a film from its deliveries.

    Raises:
      ValueError: a film in which nothing arrived.
    """
    if not deliveries:
        raise ValueError("Nothing was delivered; film a story of 1 shot or more.")
    pairs = list(itertools.pairwise(deliveries))
    frames, last = sum(d.frames for d in deliveries), deliveries[-1].at
    # A shot lasts from the end of the one before: its cut's context pass is its own time.
    ends = [d.at for d, after in pairs if d.shot != after.shot] + [last]
    return EndToEnd(
        # With the wait for the first frames: what a film takes, not what its best stretch would
        # promise.
        fps=frames / last,
        frames=frames,
        seconds=last,
        time_to_first_frame=deliveries[0].at,
        cut_latency=spread([after.at - d.at for d, after in pairs if d.shot != after.shot]),
        chunk_interval=spread([after.at - d.at for d, after in pairs if d.shot == after.shot]),
        shot_seconds=tuple(np.diff([0.0, *ends]).tolist()),
    )
