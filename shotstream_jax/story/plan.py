"""From a story to what the rollout needs to film one shot of it.

Two integers that the reference ties are kept apart: `rope_shot` is the shot number that positions
carry (the first shot carries 1, as the released weights were trained), and captions are named one
by one: each context frame's own, and the shot's.
"""

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Literal

from shotstream_jax.story.context import (
    CONTEXT_BUDGET,
    ContextPolicy,
    context_frames,
)
from shotstream_jax.story.story import Story, Transition, full_captions

CHUNK_FRAMES = 3
"""Latent frames of a chunk of the released weights."""

TEMPORAL_STRIDE = 4
"""Video frames per latent frame of the Wan VAE."""

Positions = Literal["running", "rebased", "turned"]
"""Frame numbers of chunks beyond the length that was trained.

"running" counts on. The others stay within the trained numbers: "rebased" commits the chunks before
again at the first numbers, "turned" turns the keys that the cache holds back by one chunk. Both
film every later chunk as the last trained one.
"""


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class TakeFrame:
    """A video frame of a take.

    Attributes:
      shot_id: name of the shot.
      take: which of its takes.
      frame: video frame, counted from the first of that shot.
    """

    shot_id: str
    take: int
    frame: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TakeRef:
    """A take of a shot."""

    shot_id: str
    take: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContextFrame:
    """What stands in one context slot.

    Attributes:
      source: the frame.
      caption: full caption that the slot's tokens read.
      rope_shot: shot number that its positions carry.
    """

    source: TakeFrame
    caption: str
    rope_shot: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShotPlan:
    """Everything that decides what a take of a shot will look like, but for the weights.

    Attributes:
      index: the shot's place in the story.
      shot_id: its lasting name.
      take: which rendering of the shot.
      caption: full caption of the generated frames.
      chunks: chunks of latent frames to make.
      seed: of the shot's PRNG key.
      noise_shot: number of the shot that is folded into that key.
      transition: a cut, or more chunks after those of the shot before.
      continues: the take that goes on, if this is no cut.
      context: one frame for every context slot; none is a context of zeros.
      rope_shot: shot number that the positions of generated frames carry.
      positions: frame numbers beyond the trained length.
    """

    index: int
    shot_id: str
    take: int = 0
    caption: str
    chunks: int
    seed: int
    noise_shot: int
    transition: Transition
    continues: TakeRef | None = None
    context: tuple[ContextFrame, ...]
    rope_shot: int
    positions: Positions = "running"


def count_video_frames(
    latent_frames: int, transition: Transition, temporal_stride: int = TEMPORAL_STRIDE
) -> int:
    """Video frames that a shot of `latent_frames` shows: only a camera's first latent is one frame.

    Raises:
      ValueError: no latent frames.
    """
    if latent_frames < 1:
        raise ValueError(f"A shot of {latent_frames} latent frames; a shot has 1 or more.")
    if transition == "continue":
        return temporal_stride * latent_frames
    return 1 + temporal_stride * (latent_frames - 1)


def shot_lengths(
    story: Story, *, chunk_frames: int = CHUNK_FRAMES, temporal_stride: int = TEMPORAL_STRIDE
) -> tuple[int, ...]:
    """Video frames of each shot of a story."""
    return tuple(
        count_video_frames(
            chunk_frames * (shot.chunks or story.defaults.chunks), shot.transition, temporal_stride
        )
        for shot in story.shots
    )


def camera_start(story: Story, index: int) -> int:
    """The cut that began the camera of shot `index`.

    Raises:
      IndexError: the story has no such shot.
    """
    if not 0 <= index < len(story.shots):
        raise IndexError(
            f"Shot {index} of {story.title!r}: its {len(story.shots)} shots count from 0."
        )
    return max(k for k in range(index + 1) if story.shots[k].transition == "cut")


def plan_shot(
    story: Story,
    index: int,
    *,
    chunk_frames: int = CHUNK_FRAMES,
    temporal_stride: int = TEMPORAL_STRIDE,
    budget: int = CONTEXT_BUDGET,
    policy: ContextPolicy = "anchor",
    filmed: Sequence[int] | None = None,
) -> ShotPlan:
    """The plan of one shot; a shot that continues keeps the context and position of its cut.

    Args:
      story: the whole story.
      index: the shot, from 0.
      chunk_frames: latent frames of a chunk.
      temporal_stride: video frames per latent frame.
      budget: context frames.
      policy: which frames of earlier shots are seen.
      filmed: video frames of each earlier shot as it was filmed, if not as the story has it.

    Raises:
      IndexError: the story has no such shot.
      ValueError: `filmed` leaves out a shot before the cut, or holds one without frames.
    """
    cut = camera_start(story, index)
    if filmed is None:
        filmed = shot_lengths(story, chunk_frames=chunk_frames, temporal_stride=temporal_stride)
    if len(filmed) < cut:
        raise ValueError(
            f"Shot {index} needs the lengths of {cut} earlier shots, got {len(filmed)}; "
            "film those first."
        )
    shot, captions = story.shots[index], full_captions(story)
    return ShotPlan(
        index=index,
        shot_id=story.shot_id(index),
        take=shot.take or 0,
        caption=captions[index],
        chunks=shot.chunks or story.defaults.chunks,
        seed=story.defaults.seed if shot.seed is None else shot.seed,
        noise_shot=noise_number(story, index),
        transition=shot.transition,
        continues=_take_of(story, index - 1) if shot.transition == "continue" else None,
        context=tuple(
            ContextFrame(
                source=TakeFrame(
                    shot_id=story.shot_id(ref.shot),
                    take=story.shots[ref.shot].take or 0,
                    frame=ref.frame,
                ),
                caption=captions[ref.shot],
                rope_shot=ref.shot,
            )
            for ref in context_frames(filmed[:cut], budget, policy)
        ),
        # The released weights saw a first shot as number 1, the same as a second one.
        rope_shot=max(1, cut),
        positions="running" if story.version == 1 else "turned",
    )


def _take_of(story: Story, index: int) -> TakeRef:
    return TakeRef(shot_id=story.shot_id(index), take=story.shots[index].take or 0)


def noise_number(story: Story, index: int) -> int:
    """The number of a shot that is folded into the PRNG key of its noise.

    In format 1 that is the shot's place. Since format 2 it is a checksum of the shot's id, so that
    a shot keeps its noise when others are inserted or moved.
    """
    return index if story.version == 1 else zlib.crc32(story.shot_id(index).encode())
