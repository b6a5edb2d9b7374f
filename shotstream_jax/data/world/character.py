"""The character's body: where ink, paint, trim and eyes lie, in the frame that moves with it.

Body coordinates `(u, v)` have their origin in the middle of the body and the body radius as their
unit; `v` runs from head to foot, whatever way the body is turned.
"""

import numpy as np
from jaxtyping import Float

from shotstream_jax.data.world.attributes import COLOURS, TRIMS, Rgb
from shotstream_jax.data.world.motion import Poses
from shotstream_jax.data.world.spec import StorySpec
from shotstream_jax.data.world.shapes import Field, body_distance, coverage, ellipse_distance

Cover = Float[np.ndarray, "video_frame row column"]
Paint = Float[np.ndarray, "video_frame row column 3"]

INK: Rgb = (46, 38, 62)
INK_WIDTH = 0.12
EYE_WHITE: Rgb = (255, 255, 255)
EYE_RADII = (0.19, 0.23)
EYE_APART = 0.25
PUPIL = 0.12

FACES = {"circle": -0.26, "square": -0.28, "triangle": -0.1, "star": -0.14}
"""Height `v` of the eyes."""

SHADE = 0.13


def trim_distance(pattern: str, u: Field, v: Field) -> Field:
    """Distance to the part of the body that wears the second colour, in body radii."""
    match pattern:
        case "dipped":
            return 0.2 - v
        case "striped":
            return np.abs(u) - 0.32
        case _:
            return -u


def eye_distance(shape: str, u: Field, v: Field) -> Field:
    """Distance to the nearer eye, in body radii."""
    return ellipse_distance(np.abs(u), v, (EYE_APART, FACES[shape]), EYE_RADII)


def pupil_distance(shape: str, u: Field, v: Field, gaze: float) -> Field:
    """Distance to the nearer pupil, in body radii."""
    left = ellipse_distance(u, v, (0.06 * gaze - EYE_APART, FACES[shape] + 0.03), (PUPIL, PUPIL))
    right = ellipse_distance(u, v, (0.06 * gaze + EYE_APART, FACES[shape] + 0.03), (PUPIL, PUPIL))
    return np.minimum(left, right)


def body_coordinates(x: Field, y: Field, seen: Poses) -> tuple[Field, Field]:
    """Turn points of the frame, one grid a video frame, into body coordinates."""
    cos, sin = (f(seen.angle)[:, None, None] / seen.radius for f in (np.cos, np.sin))
    right = (x - seen.x[:, None, None]) * seen.stretch[:, None, None]
    down = (y - seen.y[:, None, None]) / seen.stretch[:, None, None]
    return cos * right + sin * down, cos * down - sin * right


def paint_character(
    x: Field, y: Field, seen: Poses, story: StorySpec, height: int
) -> tuple[Cover, Paint]:
    """Cover of the character and its colour times that cover, for points of a frame `height` high.

    Layers are kept as weights of a four-colour palette until the last step, which is much cheaper
    than blending three channels layer by layer.
    """
    pixels = seen.radius * height
    u, v = body_coordinates(x, y, seen)
    edge = body_distance(story.shape, u, v)
    cover = coverage(edge, pixels)
    inside = coverage(edge + INK_WIDTH, pixels)
    second = coverage(trim_distance(story.pattern, u, v), pixels)
    eye = coverage(eye_distance(story.shape, u, v), pixels)
    pupil = coverage(pupil_distance(story.shape, u, v, seen.gaze), pixels)
    light = 1 - SHADE * np.clip((y - seen.y[:, None, None]) / seen.radius + 0.2, -0.6, 1)
    painted = inside * (1 - eye) * light
    white = eye * (1 - pupil)
    ink = 1 - inside * (1 - eye) - white
    weights = np.stack([painted * (1 - second), painted * second, ink, white], axis=-1)
    palette = np.asarray([COLOURS[story.colour], TRIMS[story.trim], INK, EYE_WHITE], np.float32)
    return cover, (weights * cover[..., None]) @ palette
