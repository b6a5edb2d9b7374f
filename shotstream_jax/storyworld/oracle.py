"""Attributes of a StoryWorld shot, measured from its pixels alone.

The set is recognised first: it gives scene and sky, and what differs from it is the character
(segmentation.py). Its hull gives place and size; the template that fits it best gives shape,
pattern, rotation and colours (fitting.py). Nothing here knows what the shot should show:
film_score.py compares.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from shotstream_jax.storyworld.attributes import (
    ACTIONS,
    ATTRIBUTES,
    COLOURS,
    FRAMINGS,
    PATTERNS,
    SCENES,
    SHAPES,
    SKIES,
    TRIMS,
    Rgb,
)
from shotstream_jax.storyworld.character import INK
from shotstream_jax.storyworld.fitting import Fit, fit_templates
from shotstream_jax.storyworld.geometry import ACTION_FPS, LENSES, Picture
from shotstream_jax.storyworld.motion import Track
from shotstream_jax.storyworld.scenery import backdrop
from shotstream_jax.storyworld.segmentation import (
    Footage,
    Rgbs,
    Setting,
    find_character,
    restore_colours,
    setting_costs,
    shadow_rows,
    smooth,
    to_rgb,
)
from shotstream_jax.storyworld.silhouettes import (
    Hulls,
    Mask,
    cut_patches,
    measure_hulls,
    templates,
)

UNSEEN = "unseen"
"""Read where a film shows no set of StoryWorld, or no character on it; never a right answer."""

# A default StoryWorld shot whole, at 8 frames a second, and a cost that does not grow with a shot.
MAX_FRAMES = 21
"""Video frames that are measured, spread evenly over longer shots."""

# What the least true walk and jump cover, in frame heights: over 180 true shots of 21 frames,
# clean, blurred, noisy, faded and at half resolution, walks cover 0.41 or more and jumps 0.15;
# shorter clips may end before the top of a hop.
_WALK = 0.4
_JUMP = 0.11

# Costs that no true film reaches, and a size that none falls to. Over the same shots sets cost up
# to 66 (a fade costs most) and radii are 0.2 or more.
_MAX_SET_COST = 72.0
_MAX_TEMPLATE_COST = 0.8
_MIN_RADIUS = 0.08

# Soft edges put a hull's border a little outside the body's, and blend ink into the paint.
_EDGE_PIXELS = 0.8
_MAX_INK_SHARE = 0.45

# Framings are 0.24 apart in log size. A body within 0.05 of the midpoint follows the set; any other
# is decided by its size, as a film may show a near character on a far set.
_SET_VOTE = 0.1

Choice = tuple[str, float]
"""A value and its confidence."""

_UNSEEN_SET: Mapping[str, Choice] = dict.fromkeys(("scene", "sky"), (UNSEEN, 0.0))
_UNSEEN_BODY: Mapping[str, Choice] = dict.fromkeys(
    ("framing", "shape", "pattern", "colour", "trim", "action"), (UNSEEN, 0.0)
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observation:
    """The measured attributes of one shot.

    Attributes:
      values: the value of every attribute, or `UNSEEN`.
      confidence: how much better that value fits than the next best one, in [0, 1].
      evidence: how far each action is carried out, 1 is as far as in a true film; 0 for all where
        no character is seen.
      x: middle of the body in the frames measured, in frame heights from the frame's middle.
      y: middle of the body, in frame heights from the frame's top edge.
      radius: body radius, in frame heights.
      flicker: mean change of the set between frames measured, as a share of the RGB range.
      deviation: mean distance of the set from the nearest true one, as a share of the RGB range.
    """

    values: Mapping[str, str]
    confidence: Mapping[str, float]
    evidence: Mapping[str, float]
    x: Track
    y: Track
    radius: float
    flicker: float
    deviation: float


def observe_shot(footage: Footage) -> Observation:
    """Measure every attribute of a shot, in about 20 ms at 64x96 pixels.

    Raises:
      ValueError: a frame size that StoryWorld does not support.
    """
    picture = Picture(height=footage.shape[1], width=footage.shape[2])
    chosen = np.unique(np.linspace(0, len(footage) - 1, min(len(footage), MAX_FRAMES)).round())
    frames = to_rgb(footage[chosen.astype(np.int64)])
    soft = smooth(frames)
    costs = setting_costs(soft, picture)
    scene, sky, framing = np.unravel_index(costs.argmin(), costs.shape)
    setting = SCENES[scene], tuple(SKIES)[sky], FRAMINGS[framing]
    # Restored colours find the character; its own colours are then read from the frames as they
    # are, since a model that paints the wrong colour must not be corrected.
    hull = find_character(restore_colours(soft, setting, picture), setting, picture)
    hulls = measure_hulls(hull)
    cover = cut_patches(hull[..., None].astype(np.float32), hulls)[..., 0]
    fit = fit_templates(cut_patches(soft, hulls), cover, chosen / ACTION_FPS)
    x, y, radius = _track(hulls, fit, picture)
    set_seen = costs.min() < _MAX_SET_COST
    # Costs of a fit are summed over frames, so the threshold grows with them.
    fits = fit.costs.min() < _MAX_TEMPLATE_COST * len(x)
    body_seen = set_seen and radius > _MIN_RADIUS and fits
    evidence = _evidence(x, y, fit, seen=bool(body_seen))
    choices = {
        **(_choose_set(costs) if set_seen else _UNSEEN_SET),
        **(_choose_body(fit, radius, setting[2], evidence) if body_seen else _UNSEEN_BODY),
    }
    flicker, deviation = _set_quality(frames, soft, hull, setting, picture)
    return Observation(
        values={name: choices[name][0] for name in ATTRIBUTES},
        confidence={name: choices[name][1] for name in ATTRIBUTES},
        evidence=evidence,
        x=x,
        y=y,
        radius=radius,
        flicker=flicker,
        deviation=deviation,
    )


def _choose_set(costs: Float[np.ndarray, "scene sky framing"]) -> dict[str, Choice]:
    # Each attribute by its best combination with the others: runners-up then differ in it alone.
    return {
        "scene": _least(costs.min((1, 2)), SCENES),
        "sky": _least(costs.min((0, 2)), tuple(SKIES)),
    }


def _choose_body(
    fit: Fit, radius: float, set_framing: str, evidence: Mapping[str, float]
) -> dict[str, Choice]:
    return {
        "framing": _least(_framing_costs(radius, set_framing), FRAMINGS),
        "shape": _least(fit.costs.min(1), SHAPES),
        "pattern": _least(fit.costs.min(0), PATTERNS),
        "colour": _least(_hue_costs(fit.paint), tuple(COLOURS)),
        "trim": _least(_trim_costs(fit.trim), tuple(TRIMS)),
        "action": _least(1 - np.asarray([*evidence.values()]), tuple(evidence)),
    }


def _least(costs: Float[np.ndarray, " value"], values: Sequence[str]) -> Choice:
    """The value of least cost, and a confidence: 1 less the ratio of the best cost to the next."""
    best, second = np.sort(costs)[:2]
    return values[int(costs.argmin())], float(1 - best / max(second, 1e-6))


def _track(hulls: Hulls, fit: Fit, picture: Picture) -> tuple[Track, Track, float]:
    """Middle and radius of the body, in frame heights."""
    known = templates()
    radius = np.maximum(hulls.radius - _EDGE_PIXELS, 0) * known.radius[fit.shape, fit.angle]
    offset = known.offset[fit.shape, fit.angle] * radius[:, None]
    x = (hulls.x + offset[:, 0]) / picture.height - picture.half_width
    y = (hulls.y + offset[:, 1]) / picture.height
    return x, y, float(np.median(radius) / picture.height)


def _evidence(x: Track, y: Track, fit: Fit, *, seen: bool) -> dict[str, float]:
    """How far each action is carried out; standing still is the lack of all others."""
    if not seen:
        return dict.fromkeys(ACTIONS, 0.0)
    # Means of the first and last quarter: one frame with a wrong hull does not make a walk.
    quarter = max(1, len(x) // 4)
    walked = float(x[-quarter:].mean() - x[:quarter].mean()) / _WALK
    # Percentiles for the same reason; of 21 frames they leave out the extreme one on either side.
    low, high = np.percentile(y, (5, 95))
    moving = {
        "walk_left": max(-walked, 0.0),
        "walk_right": max(walked, 0.0),
        "jump": float(high - low) / _JUMP,
        "spin": abs(fit.pace),
    }
    moving = {action: min(share, 1.0) for action, share in moving.items()}
    return {"still": 1 - max(moving.values()), **moving}


def _framing_costs(radius: float, set_framing: str) -> Float[np.ndarray, " framing"]:
    """Distance in log size; where a body lies between two framings, the set's framing decides."""
    sizes = np.asarray([LENSES[framing].radius for framing in FRAMINGS])
    disagrees = np.asarray([framing != set_framing for framing in FRAMINGS])
    return np.abs(np.log(max(radius, 1e-3) / sizes)) + _SET_VOTE * disagrees


def _hue_costs(colour: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " colour"]:
    """Distance in hue, which fading, shading and blended ink change little."""
    palette = _chroma(np.asarray([*COLOURS.values()], np.float64))
    seen = _chroma(colour)
    scale = np.linalg.norm(palette, axis=-1) * max(float(np.linalg.norm(seen)), 1e-6)
    return 1 - palette @ seen / scale


def _chroma(colour: Float[np.ndarray, "*many 3"]) -> Float[np.ndarray, "*many 2"]:
    """A colour's coordinates in the plane orthogonal to grey."""
    # The hexagonal chroma plane: hue is the angle in it, with primaries 120 degrees apart.
    red, green, blue = np.moveaxis(colour, -1, 0)
    return np.stack([red - (green + blue) / 2, np.sqrt(0.75) * (green - blue)], axis=-1)


def _trim_costs(colour: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " trim"]:
    """Distance in RGB to each trim, pure or with up to `_MAX_INK_SHARE` of ink blended into it."""
    return np.asarray([_distance_to_inked(colour, trim) for trim in TRIMS.values()])


def _distance_to_inked(colour: Float[np.ndarray, " 3"], pure: Rgb) -> float:
    # To the nearest point of the segment from the pure colour towards ink.
    away, to_ink = colour - np.asarray(pure), np.asarray(INK) - np.asarray(pure)
    share = np.clip(away @ to_ink / (to_ink @ to_ink), 0, _MAX_INK_SHARE)
    return float(np.linalg.norm(away - share * to_ink))


def _set_quality(
    frames: Rgbs, soft: Rgbs, hull: Mask, setting: Setting, picture: Picture
) -> tuple[float, float]:
    """Flicker and deviation of the set, away from the character and its shadow."""
    bare = ~hull
    # Two pixels away from the hull, which is as far as blur carries the character's colours.
    reach = range(-2, 3)
    for axis in (1, 2):
        bare = np.logical_and.reduce([np.roll(bare, shift, axis) for shift in reach])
    bare[:, shadow_rows(setting[2], picture)] = False
    # Uncovered ground is no flicker: only pixels that are bare in both frames count.
    both = bare[1:] & bare[:-1]
    change = np.abs(np.diff(frames, axis=0))[both]
    off = np.abs(soft - smooth(backdrop(*setting, picture)[None]))[bare]
    return _mean_share(change), _mean_share(off)


def _mean_share(change: Float[np.ndarray, "point 3"]) -> float:
    return float(change.mean() / 255) if change.size else 0.0
