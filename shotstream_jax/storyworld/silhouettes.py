"""Templates of the character for the oracle: every shape, pattern and angle in canonical form.

A hull is a mask with every gap filled that the mask encloses along its row and its column. A
canonical patch is `SIDE` pixels square and `SPAN` hull radii wide, centred on the hull's centre of
mass. Place and size of a body can thus be read off a mask before its shape is known.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float

from shotstream_jax.storyworld.attributes import PATTERNS, SHAPES
from shotstream_jax.storyworld.character import body_layers
from shotstream_jax.storyworld.shapes import Field, body_distance

# A hull of radius 1 spans 2; at 3.2 every tip is inside with background around it, where a wrong
# shape shows. In 22 pixels that is half the resolution of a wide shot at 64 rows (42 would be all
# of it), and a fit costs a quarter.
SIDE = 22
SPAN = 3.2
# 10 degrees: finer than a spin's step of 18; from one to the next a corner moves by 1.4 pixels.
ANGLES = 36
"""Rotations in a full turn."""

# Templates are drawn at 24 pixels a body radius, twice what films show, on a field that holds the
# farthest tip (1.29).
_FINE_SIDE = 72
_FINE_HALF = 1.5

Mask = Bool[np.ndarray, "video_frame height width"]
Images = Float[np.ndarray, "video_frame height width chan"]
Patches = Float[np.ndarray, "video_frame pixel chan"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hulls:
    """One hull a video frame, in pixels.

    Attributes:
      x: centre of mass.
      y: centre of mass.
      radius: radius of the disc of the same area; 0 where nothing was found.
    """

    x: Float[np.ndarray, " video_frame"]
    y: Float[np.ndarray, " video_frame"]
    radius: Float[np.ndarray, " video_frame"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Templates:
    """Canonical templates, in the order of `SHAPES`, `PATTERNS` and `body_layers`.

    Attributes:
      inside: share of each patch pixel inside the hull.
      layers: share of each patch pixel in each layer of the body.
      radius: body radius over hull radius.
      offset: from the centre of mass of the hull to the middle of the body, in body radii.
    """

    inside: Float[np.ndarray, "shape angle pixel"]
    layers: Float[np.ndarray, "layer shape pattern angle pixel"]
    radius: Float[np.ndarray, "shape angle"]
    offset: Float[np.ndarray, "shape angle 2"]


def fill(mask: Mask) -> Mask:
    """Add every pixel that the mask encloses both along its row and along its column."""
    return mask | (_enclosed(mask, axis=2) & _enclosed(mask, axis=1))


def measure_hulls(hull: Mask) -> Hulls:
    """Place and size of each hull; an empty one lies in the middle of the frame."""
    _, height, width = hull.shape
    area = hull.sum((1, 2))
    found = np.maximum(area, 1)  # an empty hull divides by 1 and is replaced below
    x = hull.sum(1) @ (np.arange(width) + 0.5) / found
    y = hull.sum(2) @ (np.arange(height) + 0.5) / found
    return Hulls(
        x=np.where(area > 0, x, width / 2),
        y=np.where(area > 0, y, height / 2),
        radius=np.sqrt(area / np.pi),
    )


def cut_patches(images: Images, hulls: Hulls) -> Patches:
    """The canonical patch around each hull, bilinear; beyond the frame its edge repeats."""
    count, height, width, _ = images.shape
    reach = _patch_axis() * hulls.radius[:, None]
    # A little less than the last index, so that the corner to the right always exists.
    column = np.clip(hulls.x[:, None] + reach - 0.5, 0, width - 1.001)
    row = np.clip(hulls.y[:, None] + reach - 0.5, 0, height - 1.001)
    left, top = column.astype(np.int64), row.astype(np.int64)
    rightward = (column - left)[:, None, :, None].astype(np.float32)
    downward = (row - top)[:, :, None, None].astype(np.float32)
    frame = np.arange(count)[:, None, None]

    def corner(down: int, right: int) -> np.ndarray:
        return images[frame, (top + down)[:, :, None], (left + right)[:, None, :]]

    upper = corner(0, 0) + rightward * (corner(0, 1) - corner(0, 0))
    lower = corner(1, 0) + rightward * (corner(1, 1) - corner(1, 0))
    return (upper + downward * (lower - upper)).reshape(count, SIDE * SIDE, -1)


@functools.cache
def templates() -> Templates:
    """Draw all templates, once a process."""
    inside, layers, radius, offset = [], [], [], []
    for shape in SHAPES:
        # The same hull operation that observed masks go through: a star's inlets are filled alike.
        hull = fill(body_distance(shape, *_turned(*_fine_grid())) < 0)
        hulls = measure_hulls(hull)
        pixels = _FINE_SIDE / (2 * _FINE_HALF)
        hull_radius = (hulls.radius / pixels)[:, None, None]
        middle = _FINE_HALF - np.stack([hulls.x, hulls.y], axis=-1) / pixels
        axis = _patch_axis() * hull_radius
        u, v = _turned(
            axis - middle[:, 0, None, None], axis.swapaxes(1, 2) - middle[:, 1, None, None]
        )
        drawn = [body_layers(shape, p, u, v, 0.0, SIDE / SPAN / hull_radius) for p in PATTERNS]
        layers.append(np.stack(drawn, axis=1).reshape(-1, len(PATTERNS), ANGLES, SIDE * SIDE))
        inside.append(cut_patches(hull[..., None].astype(np.float32), hulls)[..., 0])
        radius.append(pixels / hulls.radius)
        offset.append(middle)
    return Templates(
        inside=np.stack(inside),
        layers=np.stack(layers, axis=1).astype(np.float32),
        radius=np.stack(radius),
        offset=np.stack(offset),
    )


def _enclosed(mask: Mask, axis: int) -> Mask:
    before = np.logical_or.accumulate(mask, axis=axis)
    after = np.flip(np.logical_or.accumulate(np.flip(mask, axis), axis=axis), axis)
    return before & after


def _patch_axis() -> Float[np.ndarray, " side"]:
    """Coordinates of patch pixels along one axis, in hull radii."""
    return ((np.arange(SIDE) + 0.5) / SIDE - 0.5) * SPAN


def _fine_grid() -> tuple[Field, Field]:
    axis = ((np.arange(_FINE_SIDE) + 0.5) / _FINE_SIDE * 2 - 1) * _FINE_HALF
    return axis[None, None, :], axis[None, :, None]


def _turned(x: Field, y: Field) -> tuple[Field, Field]:
    """Body coordinates of points around a body, for every angle on a new leading axis."""
    angle = (np.arange(ANGLES) * 2 * np.pi / ANGLES)[:, None, None]
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
