"""Distances are distances, and bodies are as large as the stage takes them to be."""

import numpy as np
import pytest

from shotstream_jax.storyworld.attributes import SHAPES
from shotstream_jax.storyworld.shapes import (
    body_distance,
    body_extent,
    body_foot,
    box_distance,
    coverage,
    ellipse_distance,
)

AXIS = np.linspace(-2, 2, 801)
X, Y = np.meshgrid(AXIS, AXIS)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_body_distance_grows_by_one_a_unit(shape):
    distance = body_distance(shape, X, Y)
    step = AXIS[1] - AXIS[0]
    for axis in (0, 1):
        assert np.abs(np.diff(distance, axis=axis)).max() <= step * 1.001
    assert np.median(np.hypot(*np.gradient(distance, step))) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_extent_and_foot_are_those_of_the_drawn_body(shape):
    inside = body_distance(shape, X, Y) < 0
    assert np.hypot(X, Y)[inside].max() == pytest.approx(body_extent(shape), abs=0.01)
    assert Y[inside].max() == pytest.approx(body_foot(shape), abs=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_bodies_are_of_like_area_and_balanced_around_their_middle(shape):
    inside = body_distance(shape, X, Y) < 0
    area = inside.sum() * (AXIS[1] - AXIS[0]) ** 2
    assert area == pytest.approx(np.pi, rel=0.15)
    assert X[inside].mean() == pytest.approx(0, abs=0.01)
    assert Y[inside].mean() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("shape", "tips"), [("square", 4), ("triangle", 3), ("star", 5)])
def test_a_polygon_has_its_tips(shape, tips):
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    reach = [
        np.max(AXIS[body_distance(shape, AXIS * np.sin(a), -AXIS * np.cos(a)) < 0]) for a in angle
    ]
    far = np.asarray(reach) > (max(reach) + min(reach)) / 2
    assert (far & ~np.roll(far, 1)).sum() == tips


def test_a_square_stands_on_its_side_and_a_star_on_two_tips():
    corner = np.asarray([0.8])
    assert body_distance("square", corner, corner)[0] < 0
    assert body_distance("star", np.asarray([0.0]), np.asarray([1.0]))[0] > 0


def test_boxes_and_ellipses_measure_from_their_edge():
    point = np.asarray([3.0])
    assert box_distance(point, 0 * point, (0.0, 0.0), (1.0, 0.5))[0] == pytest.approx(2)
    assert ellipse_distance(point, 0 * point, (1.0, 0.0), (0.5, 0.5))[0] == pytest.approx(1.5)


def test_coverage_ramps_over_one_pixel():
    pixels = 10.0
    edge = np.asarray([-1.0, -0.05, 0.0, 0.05, 1.0])
    np.testing.assert_allclose(coverage(edge, pixels), [1, 1, 0.5, 0, 0])
