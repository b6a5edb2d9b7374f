"""Painted backdrops: sky, far skyline, ground and one landmark, fixed for a scene, sky and framing.

A backdrop is float32 RGB in [0, 255]. The landmark stands at the side of the picture, so that a
close-up of the character does not hide it.
"""

import functools

import numpy as np
from jaxtyping import Float

from shotstream_jax.data.world.attributes import SKIES, Rgb
from shotstream_jax.data.world.shapes import (
    Field,
    box_distance,
    coverage,
    ellipse_distance,
)
from shotstream_jax.data.world.stage import LENSES, Picture

Canvas = Float[np.ndarray, "height width 3"]

GROUNDS: dict[str, tuple[Rgb, Rgb]] = {
    "meadow": ((136, 204, 110), (96, 172, 92)),
    "desert": ((242, 212, 152), (222, 178, 116)),
    "snow": ((246, 250, 255), (214, 228, 244)),
    "city": ((190, 180, 208), (152, 142, 178)),
}
"""Ground colour at the horizon and at the bottom of the frame."""

_AMBIENT = 0.14


class _Brush:
    """A canvas with its coordinates; every stroke blends one colour by coverage."""

    def __init__(self, picture: Picture, zoom: float, origin: tuple[float, float]):
        x, y = picture.grid()
        self.x, self.y = (x - origin[0]) / zoom, (y - origin[1]) / zoom
        self._pixels = picture.height * zoom
        self.canvas: Canvas = np.zeros((picture.height, picture.width, 3), np.float32)

    def fill(self, distance: Field, colour: Rgb | Field, opacity: float = 1.0) -> None:
        cover = (coverage(distance, self._pixels) * opacity)[..., None]
        self.canvas += cover * (np.asarray(colour, np.float32) - self.canvas)

    def box(self, center: tuple[float, float], half: tuple[float, float], colour: Rgb) -> None:
        self.fill(box_distance(self.x, self.y, center, half, min(half) * 0.35), colour)

    def disc(
        self, center: tuple[float, float], radius: float, colour: Rgb | Field, opacity: float = 1.0
    ) -> None:
        disc = ellipse_distance(self.x, self.y, center, (radius, radius))
        self.fill(disc, colour, opacity)


@functools.lru_cache(maxsize=256)
def backdrop(scene: str, sky: str, framing: str, picture: Picture) -> Canvas:
    """Paint the empty set; callers must not write to the result, which is kept."""
    lens = LENSES[framing]
    side = -1.0 if scene in ("meadow", "snow") else 1.0
    anchor = side * (picture.half_width - 0.27)
    brush = _Brush(picture, lens.zoom, (anchor, lens.horizon))
    tint = np.asarray(SKIES[sky], np.float32)
    _paint_sky(brush, tint, -1.9 * anchor / lens.zoom)
    _SKYLINES[scene](brush, tint, side)
    _paint_ground(brush, GROUNDS[scene])
    _LANDMARKS[scene](brush)
    below = coverage(-brush.y, picture.height)[..., None]
    brush.canvas += _AMBIENT * below * (tint - brush.canvas)
    brush.canvas.setflags(write=False)
    return brush.canvas


def _paint_sky(brush: _Brush, tint: np.ndarray, sun: float) -> None:
    glow = np.clip(1 + 1.6 * brush.y, 0, 1)[..., None] ** 2
    brush.canvas += tint * 0.94 + 0.3 * glow * (255 - tint)
    pale = tint + 0.62 * (255 - tint)
    brush.disc((sun, -0.34), 0.15, pale, 0.4)
    brush.disc((sun, -0.34), 0.1, pale)


def _paint_ground(brush: _Brush, colours: tuple[Rgb, Rgb]) -> None:
    far, near = (np.asarray(c, np.float32) for c in colours)
    depth = np.clip(brush.y / 0.34, 0, 1)[..., None]
    brush.fill(-brush.y + 0 * brush.x, far + depth * (near - far))


def _hills(brush: _Brush, tint: np.ndarray, side: float, colour: Rgb, height: float) -> None:
    """A soft range along the horizon, paled by the air before it."""
    haze = np.asarray(colour, np.float32) + 0.35 * (tint - np.asarray(colour, np.float32))
    for x, size in ((-0.25, 1.0), (0.7, 1.25), (1.5, 0.9)):
        hill = ellipse_distance(brush.x, brush.y, (-side * x, 0.04), (0.55 * size, height * size))
        brush.fill(hill, haze)


def _towers(brush: _Brush, tint: np.ndarray, side: float) -> None:
    haze = np.asarray((150, 152, 178), np.float32) + 0.3 * (tint - (150, 152, 178))
    for x, half, height in (
        (0.42, 0.1, 0.2),
        (0.68, 0.12, 0.3),
        (0.98, 0.1, 0.17),
        (1.28, 0.14, 0.25),
    ):
        tower = box_distance(brush.x, brush.y, (-side * x, 0.0), (half, height))
        brush.fill(tower, haze)


def _tree(brush: _Brush) -> None:
    brush.box((0.0, -0.02), (0.035, 0.14), (126, 84, 56))
    for x, y, r in ((-0.1, -0.2, 0.115), (0.1, -0.2, 0.115), (0.0, -0.31, 0.135)):
        brush.disc((x, y), r, (52, 128, 74))
    brush.disc((-0.03, -0.33), 0.07, (84, 160, 92))


def _cactus(brush: _Brush) -> None:
    for center, half in (
        ((0.0, -0.12), (0.06, 0.26)),
        ((-0.11, -0.1), (0.1, 0.038)),
        ((-0.17, -0.17), (0.038, 0.1)),
        ((0.11, -0.02), (0.1, 0.038)),
        ((0.17, -0.1), (0.038, 0.11)),
    ):
        brush.box(center, half, (54, 130, 84))
    brush.box((-0.02, -0.13), (0.012, 0.2), (96, 170, 116))


def _igloo(brush: _Brush) -> None:
    dome = np.maximum(ellipse_distance(brush.x, brush.y, (0.0, 0.1), (0.23, 0.3)), brush.y - 0.1)
    brush.fill(dome - 0.012, (132, 168, 206))
    brush.fill(dome, (206, 226, 246))
    door = np.maximum(ellipse_distance(brush.x, brush.y, (0.06, 0.1), (0.08, 0.13)), brush.y - 0.1)
    brush.fill(door, (70, 98, 146))


def _house(brush: _Brush) -> None:
    brush.box((0.0, -0.14), (0.2, 0.3), (178, 92, 84))
    for row in range(3):
        for column in (-0.09, 0.09):
            brush.box((column, -0.33 + 0.15 * row), (0.045, 0.045), (255, 232, 150))


_SKYLINES = {
    "meadow": lambda brush, tint, side: _hills(brush, tint, side, (120, 184, 120), 0.13),
    "desert": lambda brush, tint, side: _hills(brush, tint, side, (206, 142, 104), 0.1),
    "snow": lambda brush, tint, side: _hills(brush, tint, side, (186, 204, 232), 0.24),
    "city": _towers,
}
_LANDMARKS = {"meadow": _tree, "desert": _cactus, "snow": _igloo, "city": _house}
