"""Template fitting: shape, pattern and rotation of a character observed in many video frames.

A template fits a patch if the patch has nearly one colour inside each of its layers and if their
hulls agree. A body either stays upright or turns at an even pace from upright; the better of the
two, summed over all frames, decides shape and pattern.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from shotstream_jax.storyworld.attributes import PATTERNS, SHAPES
from shotstream_jax.storyworld.motion import TURN_SECONDS
from shotstream_jax.storyworld.silhouettes import ANGLES, Patches, templates

# Variance (squared RGB) of a pixel that weighs as much as a pixel of hull that is wrong: a
# deviation of 63 steps, half of what the nearest body and trim colours differ by.
_VARIANCE_PER_PIXEL = 4000.0

# Templates are 10 degrees apart and a waddle is 6: one to either side is enough.
_TILTS = np.asarray([-1, 0, 1])
"""Angles of an upright body: it may waddle."""

# Half to one and a half times the true pace, both ways: a model's spin need not have the right one.
# Between steps of 5 % an angle is off by 9 degrees, one template, at the end of a turn.
_PACES = np.concatenate([sign * np.arange(0.5, 1.51, 0.05) for sign in (1, -1)])

Cover = Float[np.ndarray, "video_frame pixel"]
Costs = Float[np.ndarray, "shape pattern angle video_frame"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """The template that fits a shot best.

    Attributes:
      costs: of each shape and pattern, summed over the shot's frames.
      shape: index of the best shape.
      pattern: index of the best pattern.
      pace: clockwise turning, 1 is that of the action "spin"; 0 if upright.
      angle: index of the angle in every video frame.
      paint: colour of the body, RGB in [0, 255].
      trim: second colour of the body, RGB in [0, 255].
    """

    costs: Float[np.ndarray, "shape pattern"]
    shape: int
    pattern: int
    pace: float
    angle: Int[np.ndarray, " video_frame"]
    paint: Float[np.ndarray, " 3"]
    trim: Float[np.ndarray, " 3"]


def fit_templates(colours: Patches, hull: Cover, seconds: Float[np.ndarray, " video_frame"]) -> Fit:
    """Fit every template at every angle to patches of colour and of the hull's cover."""
    costs, means = _template_costs(colours, hull)
    frame = np.arange(len(seconds))
    upright = costs[:, :, _TILTS].min(2).sum(-1)
    turns = np.round(_PACES[:, None] * seconds / TURN_SECONDS * ANGLES).astype(np.int64) % ANGLES
    turning = costs[:, :, turns, frame].sum(-1)
    best = np.minimum(upright, turning.min(-1))
    shape, pattern = np.unravel_index(best.argmin(), best.shape)
    pace = int(turning[shape, pattern].argmin())
    spins = turning[shape, pattern, pace] < upright[shape, pattern]
    tilts = _TILTS[costs[shape, pattern, _TILTS].argmin(0)] % ANGLES
    angle = turns[pace] if spins else tilts
    # The median over frames: where a frame's hull is off, its mean colours are of something else.
    paint, trim = np.median(means[:2, shape, pattern, angle, frame], axis=1)
    return Fit(
        costs=best,
        shape=int(shape),
        pattern=int(pattern),
        pace=float(_PACES[pace]) if spins else 0.0,
        angle=angle,
        paint=paint,
        trim=trim,
    )


def _template_costs(
    colours: Patches, hull: Cover
) -> tuple[Costs, Float[np.ndarray, "layer shape pattern angle video_frame 3"]]:
    """Cost of each template in each frame, and the mean colour of each of its layers."""
    known = templates()
    count, pixels, _ = colours.shape
    area = known.layers.sum(-1)
    flat = colours.transpose(1, 0, 2).reshape(pixels, -1)
    sums = (known.layers.reshape(-1, pixels) @ flat).reshape(*area.shape, count, 3)
    # Weighted variance inside layers: sum of w x^2 less (sum of w x)^2 / sum of w. As matrix
    # products over all templates at once it takes milliseconds; patch by patch it would take a
    # second.
    body = known.layers.sum(0)[:, 0].reshape(-1, pixels)
    squares = (body @ (colours**2).sum(-1).T).reshape(len(SHAPES), 1, ANGLES, count)
    explained = ((sums**2).sum(-1) / np.maximum(area, 1e-3)[..., None]).sum(0)
    # |a - b| of two covers that are 0 or 1 is a + b - 2ab.
    inside = known.inside.reshape(-1, pixels)
    apart = inside.sum(-1)[:, None] + hull.sum(-1) - 2 * inside @ hull.T
    apart = apart.reshape(len(SHAPES), 1, ANGLES, count)
    # Rounding in float32 can make a variance of nothing negative.
    uneven = np.maximum(squares - explained, 0)
    costs = (uneven / _VARIANCE_PER_PIXEL + apart) / pixels
    means = sums / np.maximum(area, 1e-3)[..., None, None]
    return np.broadcast_to(costs, (len(SHAPES), len(PATTERNS), ANGLES, count)), means
