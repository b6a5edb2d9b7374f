"""The body is covered by its layers, and what is painted follows the pose."""

import numpy as np
import pytest

from shotstream_jax.storyworld.attributes import PATTERNS, SHAPES
from shotstream_jax.storyworld.character import body_coordinates, body_layers
from shotstream_jax.storyworld.motion import Poses
from shotstream_jax.storyworld.shapes import body_distance, coverage

AXIS = np.linspace(-1.5, 1.5, 121)
U, V = AXIS[None, :], AXIS[:, None]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("shape", SHAPES)
def test_layers_add_up_to_the_body(shape, pattern):
    layers = body_layers(shape, pattern, U + 0 * V, V + 0 * U, 0.0, 40.0)
    assert layers.min() > -1e-12
    expected = coverage(body_distance(shape, U, V), 40.0)
    np.testing.assert_allclose(layers.sum(0), expected, atol=1e-12)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("shape", SHAPES)
def test_both_colours_are_large(shape, pattern):
    layers = body_layers(shape, pattern, U + 0 * V, V + 0 * U, 0.0, 40.0)
    share = layers.sum((1, 2)) / layers.sum()
    assert share[0] > 0.2
    assert share[1] > 0.2


def test_eyes_look_where_the_gaze_goes():
    def pupils(gaze: float) -> float:
        ink = body_layers("circle", "dipped", U + 0 * V, V + 0 * U, gaze, 40.0)[2]
        inner = ink * (np.hypot(U, V) < 0.8)
        return float((inner * U).sum() / inner.sum())

    assert pupils(-1.0) < pupils(0.0) < pupils(1.0)


def test_body_coordinates_undo_a_quarter_turn():
    pose = Poses(
        x=np.asarray([0.1], np.float32),
        y=np.asarray([0.5], np.float32),
        angle=np.asarray([np.pi / 2], np.float32),
        stretch=np.asarray([1.0], np.float32),
        radius=0.2,
        floor=0.9,
        gaze=0.0,
    )
    # Turned clockwise by a quarter, the head (v = -1) points right.
    u, v = body_coordinates(np.full((1, 1, 1), 0.3), np.full((1, 1, 1), 0.5), pose)
    assert u.item() == pytest.approx(0, abs=1e-6)
    assert v.item() == pytest.approx(-1, abs=1e-6)
