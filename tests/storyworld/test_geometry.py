"""The stage refuses frames that cannot be filmed, and its framings differ clearly."""

import pytest

from shotstream_jax.storyworld.attributes import FRAMINGS
from shotstream_jax.storyworld.geometry import LENSES, Picture


@pytest.mark.parametrize(("height", "width"), [(0, 96), (60, 96), (64, 100)])
def test_a_frame_that_does_not_tile_is_refused(height, width):
    with pytest.raises(ValueError, match=f"{height}x{width} pixels does not tile"):
        Picture(height=height, width=width)


def test_a_narrow_frame_is_refused():
    with pytest.raises(ValueError, match="64x64 pixels is too narrow"):
        Picture(height=64, width=64)


def test_the_grid_holds_pixel_centres_around_the_middle():
    x, y = Picture(height=64, width=96).grid()
    assert x.shape == (1, 96)
    assert y.shape == (64, 1)
    assert x.sum() == pytest.approx(0, abs=1e-4)
    assert (y[0, 0], y[-1, 0]) == pytest.approx((0.5 / 64, 63.5 / 64))


def test_each_framing_shows_the_character_a_quarter_larger():
    radii = [LENSES[framing].radius for framing in FRAMINGS]
    assert radii[1] / radii[0] > 1.25
    assert radii[2] / radii[1] > 1.25
