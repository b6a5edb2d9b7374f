"""The character's body: where ink, paint, trim and eyes lie, in the frame that moves with it.

Body coordinates `(u, v)` have their origin in the middle of the body and the body radius as their
unit; `v` runs from head to foot, whatever way the body is turned.
"""

import numpy as np
from jaxtyping import Float

from shotstream_jax.storyworld.attributes import COLOURS, TRIMS, Rgb
from shotstream_jax.storyworld.motion import Poses
from shotstream_jax.storyworld.shapes import Field, body_distance, coverage, ellipse_distance
from shotstream_jax.storyworld.spec import StorySpec

# A violet near-black: dark enough to part the body from every backdrop, and a hue that no body has.
INK: Rgb = (46, 38, 62)
"""Colour of the outline and of the pupils."""

EYE_WHITE: Rgb = (255, 255, 255)

# Where the outline is wide enough for two eyes; a triangle and a star are narrow further up.
FACES = {"circle": -0.26, "square": -0.28, "triangle": -0.1, "star": -0.14}
"""Height `v` of the eyes."""

# In body radii. In a wide shot at 64 rows the body's radius is 13 pixels: an outline of 0.12 is the
# thinnest that stays one and a half pixels wide there and survives an autoencoder.
INK_WIDTH = 0.12
SHADE = 0.13
"""Share of the light that the lower body loses."""

# Large, with a gap of 0.12 between them: at a radius of 13 pixels they still are two white spots.
_EYE_RADII = (0.19, 0.23)
_EYE_APART = 0.25
_PUPIL = 0.12
# A pupil (0.12) that shifts by 0.06 stays inside the eye (0.19).
_GAZE = 0.06

Layers = Float[np.ndarray, "4 *points"]
"""Weights of paint, trim, ink and eye white; they add up to 1 inside the body and 0 outside."""


def trim_distance(pattern: str, u: Field, v: Field) -> Field:
    """Distance to the part of the body that has the second colour, in body radii."""
    # Each covers more than a third of a disc (below, between or beside the eyes), enough pixels for
    # the second colour to be read in a wide shot.
    match pattern:
        case "dipped":
            return 0.2 - v
        case "striped":
            return np.abs(u) - 0.32
        case _:
            return -u


def body_layers(
    shape: str, pattern: str, u: Field, v: Field, gaze: float, pixels: Field | float
) -> Layers:
    """Layer weights at points in body coordinates, antialiased for a body radius of `pixels`."""
    edge = body_distance(shape, u, v)
    cover, inside = coverage(edge, pixels), coverage(edge + INK_WIDTH, pixels)
    second = coverage(trim_distance(pattern, u, v), pixels)
    eye = coverage(ellipse_distance(np.abs(u), v, (_EYE_APART, FACES[shape]), _EYE_RADII), pixels)
    pupil = coverage(_pupil_distance(shape, u, v, gaze), pixels)
    bare = inside * (1 - eye)
    white = eye * (1 - pupil)
    weights = np.stack([bare * (1 - second), bare * second, 1 - bare - white, white])
    return weights * cover


def _pupil_distance(shape: str, u: Field, v: Field, gaze: float) -> Field:
    # Pupils sit a little low: the character looks at the ground before it, not over the horizon.
    height, size = FACES[shape] + 0.03, (_PUPIL, _PUPIL)
    left = ellipse_distance(u, v, (_GAZE * gaze - _EYE_APART, height), size)
    right = ellipse_distance(u, v, (_GAZE * gaze + _EYE_APART, height), size)
    return np.minimum(left, right)


def body_coordinates(x: Field, y: Field, seen: Poses) -> tuple[Field, Field]:
    """Turn points of the frame, one grid a video frame, into body coordinates."""
    cos, sin = (f(seen.angle)[:, None, None] / seen.radius for f in (np.cos, np.sin))
    # One axis is divided and the other multiplied by the stretch: squashing keeps the area.
    right = (x - seen.x[:, None, None]) * seen.stretch[:, None, None]
    down = (y - seen.y[:, None, None]) / seen.stretch[:, None, None]
    return cos * right + sin * down, cos * down - sin * right


def paint_character(
    x: Field, y: Field, seen: Poses, spec: StorySpec, height: int
) -> tuple[
    Float[np.ndarray, "video_frame row column"], Float[np.ndarray, "video_frame row column 3"]
]:
    """Cover of the character and its colour times that cover, for points of a frame `height` high.

    Layers stay weights of a four-colour palette until the last step, which is several times
    cheaper than blending three channels layer by layer.
    """
    u, v = body_coordinates(x, y, seen)
    layers = body_layers(spec.shape, spec.pattern, u, v, seen.gaze, seen.radius * height)
    cover = layers.sum(0)
    down = (y - seen.y[:, None, None]) / seen.radius
    # Paint and trim only, lighter above and darker below a line just over the middle; in frame
    # axes, since the light stays above a body that spins.
    layers[:2] *= 1 - SHADE * np.clip(down + 0.2, -0.6, 1)
    palette = np.asarray([COLOURS[spec.colour], TRIMS[spec.trim], INK, EYE_WHITE], np.float32)
    return cover, np.moveaxis(layers, 0, -1) @ palette
