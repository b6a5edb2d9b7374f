"""Context frames: which frames of earlier shots condition a new shot.

A budget of frames is spread over the earlier shots, and over each shot from its first frame to its
last. Frames are video frames counted from the start of their own shot.
Source: KlingAIResearch/ShotStream, pipeline/causal_inference_ar.py (dynamic_sample_frames).
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

# Fixed by training: the released weights never saw more frames of context, nor empty slots.
CONTEXT_BUDGET = 6
"""Context frames of the released weights."""

ContextPolicy = Literal["anchor", "recent", "first", "ends"]
"""Which frames are seen of which shots.

"anchor" and "recent" spread frames over every shot, and differ in what they forget once there are
more shots than the budget has frames. "first" and "ends" forget as "anchor" does, and see of a shot
its first frame alone, or its first and its last, as often as there is room.
"""

ContextCaptions = Literal["own", "target"]
"""Whose caption a context frame reads: that of the shot it is from, or that of the new shot."""


@dataclasses.dataclass(frozen=True, order=True)
class FrameRef:
    """A video frame of an earlier shot.

    Attributes:
      shot: index of the shot in the story.
      frame: video frame, counted from the first of that shot.
    """

    shot: int
    frame: int


def spread_frames(first: int, last: int, count: int) -> tuple[int, ...]:
    """`count` frames from `first` to `last`, both included, at even distances (of one, `first`).

    The arithmetic is that of `torch.linspace` in float32, counted from the nearer end, and halves
    go to the even frame: recorded choices are reproduced to the frame.
    """
    if count <= 1:
        return (first,) * count
    # torch.linspace counts the upper half from the end, so that the last value is exact; in float32
    # the two directions differ in the last bit, which decides halves.
    index = np.arange(count, dtype=np.float32)
    step = np.float32(last - first) / np.float32(count - 1)
    from_first = np.float32(first) + step * index
    from_last = np.float32(last) - step * index[::-1]
    positions = np.where(index < count // 2, from_first, from_last)
    return tuple(int(frame) for frame in np.rint(positions))


def context_counts(shots: int, budget: int = CONTEXT_BUDGET) -> tuple[int, ...]:
    """Context frames of each of `shots` earlier shots; what does not divide goes to the last."""
    # The remainder goes to the latest shots, as in the reference.
    each, left_over = divmod(budget, shots)
    return (each,) * (shots - left_over) + (each + 1,) * left_over


def context_frames(
    shot_lengths: Sequence[int],
    budget: int = CONTEXT_BUDGET,
    policy: ContextPolicy = "anchor",
) -> tuple[FrameRef, ...]:
    """The frames that a shot sees of the shots before it, oldest first; none before the first shot.

    For a budget of 6 and shots of 81 video frames; a dot is a shot that is forgotten:

        shots    | 0              | 1       | 2    | 3    | 4    | 5    | 6 | 7
        1        | 0 16 32 48 64 80
        2        | 0 40 80        | 0 40 80
        3        | 0 80           | 0 80    | 0 80
        4        | 0              | 0       | 0 80 | 0 80
        5        | 0              | 0       | 0    | 0    | 0 80
        6        | 0              | 0       | 0    | 0    | 0    | 0
        7 recent | .              | 0       | 0    | 0    | 0    | 0    | 0
        7 anchor | 0              | .       | 0    | 0    | 0    | 0    | 0
        8 recent | .              | .       | 0    | 0    | 0    | 0    | 0 | 0
        8 anchor | 0              | .       | .    | 0    | 0    | 0    | 0 | 0

    "recent" is what the released weights were trained with; "anchor" never forgets the shot that
    introduced the characters. "first" and "ends" are what the paper compares with:

        2 first  | 0 0 0          | 0 0 0
        2 ends   | 0 0 80         | 0 0 80

    Args:
      shot_lengths: video frames of each earlier shot.
      budget: frames to choose.
      policy: which frames of which shots.

    Raises:
      ValueError: a shot without frames, or a budget below 1.
    """
    _refuse_empty(shot_lengths, budget)
    shots = _remembered_shots(len(shot_lengths), budget, policy)
    if not shots:
        return ()
    return tuple(
        FrameRef(shot, frame)
        for shot, count in zip(shots, context_counts(len(shots), budget), strict=True)
        for frame in _frames_of(shot_lengths[shot], count, policy)
    )


def context_candidates(
    length: int, prior_shots: int, budget: int = CONTEXT_BUDGET
) -> tuple[int, ...]:
    """Frames of a finished shot that any shot with `prior_shots` or more before it may ask for."""
    counts = {1}  # frames of each remembered shot once there are more shots than the budget
    # A shot's share only shrinks as the story grows, so that past counts need not be kept.
    for shots in range(max(1, prior_shots), budget + 1):
        counts |= set(context_counts(shots, budget))
    return tuple(sorted({f for count in counts for f in spread_frames(0, length - 1, count)}))


def _frames_of(length: int, count: int, policy: ContextPolicy) -> tuple[int, ...]:
    match policy:
        case "first":
            return (0,) * count
        case "ends":
            return (0,) * (count - count // 2) + (length - 1,) * (count // 2)
        case _:
            return spread_frames(0, length - 1, count)


def _remembered_shots(finished: int, budget: int, policy: ContextPolicy) -> tuple[int, ...]:
    # Up to `budget` shots every one has a frame; beyond, some have to be left out.
    if finished <= budget:
        return tuple(range(finished))
    if policy == "recent":
        return tuple(range(finished - budget, finished))
    return (0, *range(finished - budget + 1, finished))


def _refuse_empty(shot_lengths: Sequence[int], budget: int) -> None:
    if budget < 1:
        raise ValueError(f"A context budget of {budget} frames; it must be 1 or more.")
    for shot, length in enumerate(shot_lengths):
        if length < 1:
            raise ValueError(f"Shot {shot} has {length} video frames; a shot has 1 or more.")
