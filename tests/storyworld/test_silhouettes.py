"""Hulls and patches measure what was drawn, at any place, size and angle."""

import numpy as np
import pytest

from shotstream_jax.storyworld.attributes import SHAPES
from shotstream_jax.storyworld.shapes import body_distance
from shotstream_jax.storyworld.silhouettes import (
    ANGLES,
    SIDE,
    cut_patches,
    fill,
    measure_hulls,
    templates,
)


def drawn(shape: str, x: float, y: float, radius: float, turn: int = 0) -> np.ndarray:
    angle = turn * 2 * np.pi / ANGLES
    right = (np.arange(96) + 0.5 - x)[None, :] / radius
    down = (np.arange(64) + 0.5 - y)[:, None] / radius
    u = np.cos(angle) * right + np.sin(angle) * down
    v = np.cos(angle) * down - np.sin(angle) * right
    return (body_distance(shape, u, v) < 0)[None]


def test_filling_closes_a_ring_and_leaves_an_open_bay():
    ring = np.zeros((1, 7, 7), bool)
    ring[0, 1, 1:6] = ring[0, 5, 1:6] = ring[0, 1:6, 1] = True
    open_ring = fill(ring)
    assert not open_ring[0, 3, 3]
    ring[0, 1:6, 5] = True
    closed = fill(ring)
    assert closed[0, 1:6, 1:6].all()
    assert closed.sum() == 25


def test_a_disc_is_where_and_as_large_as_it_is():
    hulls = measure_hulls(drawn("circle", 40.0, 30.0, 12.0))
    assert hulls.x[0] == pytest.approx(40, abs=0.1)
    assert hulls.y[0] == pytest.approx(30, abs=0.1)
    assert hulls.radius[0] == pytest.approx(12, rel=0.02)


def test_an_empty_mask_has_no_radius_and_lies_in_the_middle():
    hulls = measure_hulls(np.zeros((2, 64, 96), bool))
    assert hulls.x.tolist() == [48, 48]
    assert hulls.y.tolist() == [32, 32]
    assert hulls.radius.tolist() == [0, 0]


@pytest.mark.parametrize("turn", [0, 5, 17])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_template_turns_a_hull_into_the_body_that_was_drawn(shape, turn):
    hull = fill(drawn(shape, 50.0, 33.0, 15.0, turn))
    hulls = measure_hulls(hull)
    looks, s = templates(), SHAPES.index(shape)
    radius = hulls.radius[0] * looks.radius[s, turn]
    assert radius == pytest.approx(15, rel=0.03)
    middle = np.asarray([hulls.x[0], hulls.y[0]]) + looks.offset[s, turn] * radius
    np.testing.assert_allclose(middle, [50, 33], atol=0.6)
    patch = cut_patches(hull[..., None].astype(np.float32), hulls)[0, :, 0]
    assert np.abs(patch - looks.inside[s, turn]).mean() < 0.03


def test_layers_are_shares_of_the_body():
    looks = templates()
    body = looks.layers.sum(0)
    assert looks.layers.min() > -1e-6
    assert body.max() <= 1 + 1e-5
    # The pattern moves paint about and leaves the body alone.
    np.testing.assert_allclose(body, np.broadcast_to(body[:, :1], body.shape), atol=1e-6)
    assert np.abs(body[:, 0] - looks.inside).mean() < 0.04


def test_a_patch_follows_place_and_size():
    gradient = np.broadcast_to(np.arange(96, dtype=np.float32)[:, None], (1, 64, 96, 1))
    hulls = measure_hulls(drawn("circle", 40.0, 30.0, 10.0))
    patch = cut_patches(gradient, hulls).reshape(SIDE, SIDE)
    assert patch.mean() == pytest.approx(39.5, abs=0.2)
    assert np.diff(patch, axis=1).mean() == pytest.approx(3.2 * 10 / SIDE, rel=0.02)
    assert np.abs(np.diff(patch, axis=0)).max() < 1e-4
