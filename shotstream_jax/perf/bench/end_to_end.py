"""What a viewer gets: frames a second, the wait for the first, the gap at a cut, the beat between.

A frame counts when it is on the host as 8-bit RGB. Text encoding, context and everything else that
a shot takes is in these times; chunks are asked for one ahead of being read, as when filming.
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
      at: seconds since the film was asked for.
    """

    shot: int
    frames: int
    at: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """How a film arrived; times in seconds.

    Attributes:
      fps: delivered frames per second, from the asking to the last frame.
      frames: delivered.
      seconds: from the asking to the last frame.
      time_to_first_frame: from the asking to the first frames.
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


def film(networks: Networks, story: Story) -> list[Delivery]:
    """Film a story, bring its frames to the host, and note when they came."""
    deliveries = []
    began = time.perf_counter()
    for piece in one_ahead(stream_story(networks, story)):
        frames = len(np.asarray(piece.frames))
        at = time.perf_counter() - began
        deliveries.append(Delivery(shot=piece.plan.index, frames=frames, at=at))
    return deliveries


def end_to_end(deliveries: Sequence[Delivery]) -> EndToEnd:
    """What the arrivals of a film say of its speed.

    Raises:
      ValueError: a film in which nothing arrived.
    """
    if not deliveries:
        raise ValueError("Nothing was delivered; film a story of 1 shot or more.")
    pairs = list(itertools.pairwise(deliveries))
    frames, last = sum(d.frames for d in deliveries), deliveries[-1].at
    ends = [d.at for d, after in pairs if d.shot != after.shot] + [last]
    return EndToEnd(
        fps=frames / last,
        frames=frames,
        seconds=last,
        time_to_first_frame=deliveries[0].at,
        cut_latency=spread([after.at - d.at for d, after in pairs if d.shot != after.shot]),
        chunk_interval=spread([after.at - d.at for d, after in pairs if d.shot == after.shot]),
        shot_seconds=tuple(np.diff([0.0, *ends]).tolist()),
    )
