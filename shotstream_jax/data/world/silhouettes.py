"""The looks that the oracle compares a character with: every shape, pattern and angle, canonical.

A canonical patch is `SIDE` pixels square and `SPAN` hull radii wide, centred on the hull's centre of
mass; the hull is the mask with every gap filled that the mask encloses along its row and its
column. Position and size of a body can thus be read off a mask before its shape is known.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float

from shotstream_jax.data.world.attributes import PATTERNS, SHAPES
from shotstream_jax.data.world.character import (
    INK_WIDTH,
    eye_distance,
    pupil_distance,
    trim_distance,
)
from shotstream_jax.data.world.shapes import Field, body_distance, coverage

SIDE = 22
SPAN = 3.2
ANGLES = 36
"""Rotations in a full turn."""

REGIONS = ("paint", "trim", "ink", "white")
_FINE = 72
_FINE_HALF = 1.5

Mask = Bool[np.ndarray, "video_frame height width"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hulls:
    """Centre of mass and radius (of the disc of equal area) of one hull a video frame, in pixels."""

    x: Float[np.ndarray, " video_frame"]
    y: Float[np.ndarray, " video_frame"]
    radius: Float[np.ndarray, " video_frame"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Templates:
    """Canonical looks.

    Attributes:
      inside: share of each patch pixel inside the hull.
      regions: share of each patch pixel in each of `REGIONS`.
      radius: body radius over hull radius.
      offset: from the centre of mass of the hull to the middle of the body, in body radii.
    """

    inside: Float[np.ndarray, "shape angle pixel"]
    regions: Float[np.ndarray, "region shape pattern angle pixel"]
    radius: Float[np.ndarray, "shape angle"]
    offset: Float[np.ndarray, "shape angle 2"]


def fill(mask: Mask) -> Mask:
    """Add every pixel that the mask encloses both along its row and along its column."""
    across = _enclosed(mask, 2)
    down = _enclosed(mask, 1)
    return mask | (across & down)


def _enclosed(mask: Mask, axis: int) -> Mask:
    before = np.logical_or.accumulate(mask, axis=axis)
    after = np.flip(np.logical_or.accumulate(np.flip(mask, axis), axis=axis), axis)
    return before & after


def measure_hulls(hull: Mask) -> Hulls:
    """Where each hull is and how large; an empty one has radius 0 and sits in the middle."""
    _, height, width = hull.shape
    area = hull.sum((1, 2))
    share = np.maximum(area, 1)
    x = hull.sum(1) @ (np.arange(width) + 0.5) / share
    y = hull.sum(2) @ (np.arange(height) + 0.5) / share
    empty = area == 0
    return Hulls(
        x=np.where(empty, width / 2, x),
        y=np.where(empty, height / 2, y),
        radius=np.sqrt(area / np.pi),
    )


@functools.cache
def templates() -> Templates:
    """Draw all looks, once."""
    inside, radius, offset = [], [], []
    regions = np.zeros((len(REGIONS), len(SHAPES), len(PATTERNS), ANGLES, SIDE * SIDE), np.float32)
    for s, shape in enumerate(SHAPES):
        hulls, filled = _hulls_of(shape)
        per_radius = _FINE / (2 * _FINE_HALF)
        hull_radius = hulls.radius / per_radius
        offset_xy = -(np.stack([hulls.x, hulls.y], -1) / per_radius - _FINE_HALF)
        u, v = _patch_coordinates(offset_xy, hull_radius)
        looks = [_looks(shape, pattern, u, v, hull_radius) for pattern in PATTERNS]
        regions[:, s] = np.stack(looks, 1).reshape(len(REGIONS), len(PATTERNS), ANGLES, -1)
        inside.append(_sample_hulls(filled, hulls))
        radius.append(1 / hull_radius)
        offset.append(offset_xy)
    return Templates(
        inside=np.stack(inside), regions=regions, radius=np.stack(radius), offset=np.stack(offset)
    )


def patch_grid() -> Float[np.ndarray, " side"]:
    """Coordinates of patch pixels along one axis, in hull radii."""
    return ((np.arange(SIDE) + 0.5) / SIDE - 0.5) * SPAN


def _angles() -> Float[np.ndarray, "angle 1 1"]:
    return (np.arange(ANGLES) * 2 * np.pi / ANGLES)[:, None, None]


def _turned(x: Field, y: Field) -> tuple[Field, Field]:
    cos, sin = np.cos(_angles()), np.sin(_angles())
    return cos * x + sin * y, cos * y - sin * x


def _hulls_of(shape: str) -> tuple[Hulls, Mask]:
    grid = ((np.arange(_FINE) + 0.5) / _FINE * 2 - 1) * _FINE_HALF
    filled = fill(body_distance(shape, *_turned(grid[None, :], grid[:, None])) < 0)
    return measure_hulls(filled), filled


def _patch_coordinates(offset: Field, hull_radius: Field) -> tuple[Field, Field]:
    grid = patch_grid()
    scale = hull_radius[:, None, None]
    x = grid[None, None, :] * scale - offset[:, 0, None, None]
    y = grid[None, :, None] * scale - offset[:, 1, None, None]
    return _turned(x, y)


def _looks(
    shape: str, pattern: str, u: Field, v: Field, hull_radius: Field
) -> Float[np.ndarray, "region angle row column"]:
    pixels = (SIDE / SPAN / hull_radius)[:, None, None]
    painted = coverage(body_distance(shape, u, v) + INK_WIDTH, pixels)
    cover = coverage(body_distance(shape, u, v), pixels)
    second = coverage(trim_distance(pattern, u, v), pixels)
    eye = coverage(eye_distance(shape, u, v), pixels)
    white = eye * (1 - coverage(pupil_distance(shape, u, v, 0.0), pixels))
    bare = painted * (1 - eye)
    return np.stack([bare * (1 - second), bare * second, cover - bare - painted * white, painted * white])


def _sample_hulls(filled: Mask, hulls: Hulls) -> Float[np.ndarray, "angle pixel"]:
    return sample_patches(filled[..., None].astype(np.float32), hulls)[..., 0]


def sample_patches(
    images: Float[np.ndarray, "video_frame height width chan"], hulls: Hulls
) -> Float[np.ndarray, "video_frame pixel chan"]:
    """Cut the canonical patch around each hull, bilinearly; beyond the edge the edge repeats."""
    count, height, width, _ = images.shape
    reach = patch_grid() * hulls.radius[:, None]
    column = np.clip(hulls.x[:, None] + reach - 0.5, 0, width - 1.001)
    row = np.clip(hulls.y[:, None] + reach - 0.5, 0, height - 1.001)
    left, top = column.astype(np.int64), row.astype(np.int64)
    right_share = (column - left)[:, None, :, None].astype(np.float32)
    low_share = (row - top)[:, :, None, None].astype(np.float32)
    frame = np.arange(count)[:, None, None]

    def at(down: int, right: int) -> np.ndarray:
        return images[frame, (top + down)[:, :, None], (left + right)[:, None, :]]

    upper = at(0, 0) + right_share * (at(0, 1) - at(0, 0))
    lower = at(1, 0) + right_share * (at(1, 1) - at(1, 0))
    return (upper + low_share * (lower - upper)).reshape(count, SIDE * SIDE, -1)
