"""From a story to what the rollout needs to film one shot of it.

Two integers that the reference ties are kept apart: `rope_shot` is the shot that positions name
(the first shot carries 1, as the released weights were trained), `caption_index` is the caption
that the shot is made of.
"""

import dataclasses
from collections.abc import Sequence

from shotstream_jax.story.context import (
    CONTEXT_BUDGET,
    ContextPolicy,
    FrameRef,
    context_frames,
)
from shotstream_jax.story.story import Story, Transition, full_captions

CHUNK_FRAMES = 3
"""Latent frames of a chunk of the released weights."""

TEMPORAL_STRIDE = 4
"""Video frames per latent frame of the Wan VAE."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShotPlan:
    """Everything that decides what a shot will look like, but for the weights.

    Attributes:
      index: the shot's place in the story.
      captions: full captions of the shots up to this one; `FrameRef.shot` names the caption of a
        context frame.
      caption_index: the caption of the generated frames.
      chunks: chunks of latent frames to make.
      seed: where the shot's randomness starts.
      transition: whether the camera is a new one.
      context: frames of earlier shots that the camera sees; none is a context of zeros.
      rope_shot: the shot that the positions of generated frames name.
    """

    index: int
    captions: tuple[str, ...]
    caption_index: int
    chunks: int
    seed: int
    transition: Transition
    context: tuple[FrameRef, ...]
    rope_shot: int


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
    shot = story.shots[index]
    return ShotPlan(
        index=index,
        captions=full_captions(story)[: index + 1],
        caption_index=index,
        chunks=shot.chunks or story.defaults.chunks,
        seed=story.defaults.seed if shot.seed is None else shot.seed,
        transition=shot.transition,
        context=context_frames(filmed[:cut], budget, policy),
        rope_shot=max(1, cut),
    )
