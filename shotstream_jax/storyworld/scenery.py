"""Painted backdrops: sky, far skyline, ground and one landmark, fixed for a scene, sky and framing.

A backdrop is float32 RGB in [0, 255]. It is painted in set coordinates: the origin is where the
landmark meets the horizon, `y` runs down, and the unit is the frame height in a wide shot. The
landmark stands at the side of the picture, so that a close-up of the character does not hide it.
"""

import functools

import numpy as np
from jaxtyping import Float

from shotstream_jax.storyworld.attributes import SKIES, Rgb
from shotstream_jax.storyworld.geometry import LENSES, Picture
from shotstream_jax.storyworld.shapes import Field, box_distance, coverage, ellipse_distance

Canvas = Float[np.ndarray, "height width 3"]
Tint = Float[np.ndarray, " 3"]

# Pale, and paler towards the horizon: the bodies' saturated colours and the ink stand out from all.
GROUNDS: dict[str, tuple[Rgb, Rgb]] = {
    "meadow": ((136, 204, 110), (96, 172, 92)),
    "desert": ((242, 212, 152), (222, 178, 116)),
    "snow": ((246, 250, 255), (214, 228, 244)),
    "city": ((190, 180, 208), (152, 142, 178)),
}
"""Colour of the ground at the horizon and near the camera."""

# Two on each side: the side alone does not tell the scene.
LANDMARK_SIDE = {"meadow": -1.0, "desert": 1.0, "snow": -1.0, "city": 1.0}
"""-1 is left."""

# Snow has mountains, the desert dunes: skylines differ where a close-up hides the landmark.
HILLS: dict[str, tuple[Rgb, float]] = {
    "meadow": ((120, 184, 120), 0.13),
    "desert": ((206, 142, 104), 0.1),
    "snow": ((186, 204, 232), 0.24),
}
"""Colour and height of the far hills."""

TOWERS = np.asarray((150, 152, 178), np.float32)
"""Colour of the city's far towers."""

# Distance from the landmark, half width, height. They stand across from it, the last one half past
# the edge of a 64x96 frame, so that a little wider frame does not end in empty sky.
_TOWERS = ((0.42, 0.1, 0.2), (0.68, 0.12, 0.3), (0.98, 0.1, 0.17), (1.28, 0.14, 0.25))
# In a wide shot the widest landmark (the igloo, 0.23) just fits between its middle and the edge.
_FROM_EDGE = 0.27
# Share of the sky's tint in everything below the horizon: enough to read the sky from the ground.
_AMBIENT = 0.14
# Depth below the horizon at which the ground has its near colour.
_NEAR = 0.34


class _Brush:
    """A canvas and its set coordinates; every shape blends in one colour by coverage."""

    def __init__(self, picture: Picture, side: float, horizon: float, zoom: float) -> None:
        x, y = picture.grid()
        self.x = (x - side * (picture.half_width - _FROM_EDGE)) / zoom
        self.y = (y - horizon) / zoom
        self.side = side
        self.canvas: Canvas = np.zeros((picture.height, picture.width, 3), np.float32)
        self._pixels = picture.height * zoom

    def fill(self, distance: Field, colour: Rgb | Field, opacity: float = 1.0) -> None:
        cover = (coverage(distance, self._pixels) * opacity)[..., None]
        self.canvas += cover * (np.asarray(colour, np.float32) - self.canvas)

    def box(
        self, center: tuple[float, float], half: tuple[float, float], colour: Rgb | Field
    ) -> None:
        # Corners rounded by a third of the short side: no box has an edge sharper than
        # antialiasing.
        self.fill(box_distance(self.x, self.y, center, half, min(half) * 0.35), colour)

    def disc(
        self,
        center: tuple[float, float],
        radius: float,
        colour: Rgb | Field,
        opacity: float = 1.0,
    ) -> None:
        self.fill(ellipse_distance(self.x, self.y, center, (radius, radius)), colour, opacity)


# 48 sets a size of picture (4 scenes, 4 skies, 3 framings): five sizes before any is painted again.
@functools.lru_cache(maxsize=256)
def backdrop(scene: str, sky: str, framing: str, picture: Picture) -> Canvas:
    """Paint the empty set, once a process; the result is read-only."""
    lens = LENSES[framing]
    brush = _Brush(picture, LANDMARK_SIDE[scene], lens.horizon, lens.zoom)
    tint = np.asarray(SKIES[sky], np.float32)
    # Back to front: each layer covers the ones before.
    _paint_sky(brush, tint, picture.half_width / lens.zoom)
    if scene in HILLS:
        _paint_hills(brush, tint, *HILLS[scene])
    else:
        _paint_towers(brush, tint)
    _paint_ground(brush, *GROUNDS[scene])
    _LANDMARKS[scene](brush)
    lit = _AMBIENT * coverage(-brush.y, float(picture.height))[..., None]
    brush.canvas += lit * (tint - brush.canvas)
    # It is shared by every caller of the cache.
    brush.canvas.setflags(write=False)
    return brush.canvas


def _paint_sky(brush: _Brush, tint: Tint, reach: float) -> None:
    """A tinted sky, pale near the horizon, with a sun or moon across from the landmark."""
    # Squared, and gone 0.6 above the horizon: the upper sky keeps the tint, which is what is read.
    glow = np.clip(1 + 1.6 * brush.y, 0, 1)[..., None] ** 2
    brush.canvas += tint * 0.94 + 0.3 * glow * (255 - tint)
    # 1.25 half widths from the landmark: on the other side of the frame's middle.
    sun, pale = (-1.25 * brush.side * reach, -0.34), tint + 0.62 * (255 - tint)
    brush.disc(sun, 0.15, pale, opacity=0.4)
    brush.disc(sun, 0.1, pale)


def _paint_ground(brush: _Brush, far: Rgb, near: Rgb) -> None:
    depth = np.clip(brush.y / _NEAR, 0, 1)[..., None]
    colour = np.asarray(far, np.float32) + depth * np.subtract(near, far, dtype=np.float32)
    # `0 * x` widens the half-plane from a column to the whole grid.
    brush.fill(-brush.y + 0 * brush.x, colour)


def _paint_hills(brush: _Brush, tint: Tint, colour: Rgb, height: float) -> None:
    # A third sky, as air does to far things; it also keeps hills apart from the near ground.
    haze = np.asarray(colour, np.float32) + 0.35 * (tint - colour)
    for x, size in ((-0.25, 1.0), (0.7, 1.25), (1.5, 0.9)):
        radii = 0.55 * size, height * size
        brush.fill(ellipse_distance(brush.x, brush.y, (-brush.side * x, 0.04), radii), haze)


def _paint_towers(brush: _Brush, tint: Tint) -> None:
    haze = TOWERS + 0.4 * (tint - TOWERS)
    for x, half, height in _TOWERS:
        tower = box_distance(brush.x, brush.y, (-brush.side * x, 0.0), (half, height))
        brush.fill(tower, haze)


def _paint_tree(brush: _Brush) -> None:
    brush.box((0.0, -0.02), (0.035, 0.14), (126, 84, 56))
    for x, y, radius in ((-0.1, -0.2, 0.115), (0.1, -0.2, 0.115), (0.0, -0.31, 0.135)):
        brush.disc((x, y), radius, (52, 128, 74))
    brush.disc((-0.03, -0.33), 0.07, (84, 160, 92))


def _paint_cactus(brush: _Brush) -> None:
    trunk = (0.0, -0.12), (0.06, 0.26)
    elbows = ((-0.11, -0.1), (0.1, 0.038)), ((0.11, -0.02), (0.1, 0.038))
    arms = ((-0.17, -0.17), (0.038, 0.1)), ((0.17, -0.1), (0.038, 0.11))
    for center, half in (trunk, *elbows, *arms):
        brush.box(center, half, (54, 130, 84))
    brush.box((-0.02, -0.13), (0.012, 0.2), (96, 170, 116))


def _paint_igloo(brush: _Brush) -> None:
    # The ellipses are cut off flat where they stand, a little below the horizon.
    below = brush.y - 0.1
    dome = np.maximum(ellipse_distance(brush.x, brush.y, (0.0, 0.1), (0.23, 0.3)), below)
    door = np.maximum(ellipse_distance(brush.x, brush.y, (0.06, 0.1), (0.08, 0.13)), below)
    brush.fill(dome - 0.012, (132, 168, 206))
    brush.fill(dome, (206, 226, 246))
    brush.fill(door, (70, 98, 146))


def _paint_house(brush: _Brush) -> None:
    brush.box((0.0, -0.12), (0.17, 0.28), (178, 92, 84))
    for y in (-0.3, -0.16, -0.02):
        for x in (-0.075, 0.075):
            brush.box((x, y), (0.04, 0.04), (255, 232, 150))


_LANDMARKS = {
    "meadow": _paint_tree,
    "desert": _paint_cactus,
    "snow": _paint_igloo,
    "city": _paint_house,
}
