"""The set is recognised, its colours are restored, and the character is what is left."""

import numpy as np
import pytest

from shotstream_jax.storyworld.attributes import FRAMINGS, SCENES, SKIES
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.motion import poses
from shotstream_jax.storyworld.render import render_shot
from shotstream_jax.storyworld.scenery import backdrop
from shotstream_jax.storyworld.segmentation import (
    SETTINGS,
    coarse,
    find_character,
    restore_colours,
    setting_costs,
    smooth,
    to_rgb,
)
from shotstream_jax.storyworld.shapes import body_distance
from shotstream_jax.storyworld.spec import sample_story
from tests.storyworld.corruptions import fade

PICTURE = Picture()
SPECS = [sample_story(12, 1, index=i) for i in range(15)]


def setting(spec):
    return spec.shots[0].scene, spec.sky, spec.shots[0].framing


def test_both_ways_to_store_a_film_are_the_same_film():
    film = render_shot(SPECS[0], 0)
    np.testing.assert_allclose(to_rgb(film.astype(np.float32) / 127.5 - 1), to_rgb(film), atol=1e-4)


def test_smoothing_spreads_a_dot_by_one_two_one_and_keeps_a_flat_field():
    dot = np.zeros((1, 5, 5, 3), np.float32)
    dot[0, 2, 2] = 16
    expected = np.outer([1, 2, 1], [1, 2, 1])
    np.testing.assert_allclose(smooth(dot)[0, 1:4, 1:4, 0], expected)
    np.testing.assert_allclose(smooth(np.full((1, 5, 5, 3), 7, np.float32)), 7)


def test_a_coarse_image_holds_the_means_of_cells():
    image = np.arange(8 * 8 * 3, dtype=np.float32).reshape(1, 8, 8, 3)
    np.testing.assert_allclose(coarse(image)[0, 1, 0], image[0, 4:, :4].mean((0, 1)))


@pytest.mark.parametrize("name", SETTINGS)
def test_an_empty_set_costs_nothing_and_every_other_one_much(name):
    costs = setting_costs(backdrop(*name, PICTURE)[None], PICTURE)
    scene, sky, framing = name
    at = SCENES.index(scene), tuple(SKIES).index(sky), FRAMINGS.index(framing)
    assert costs[at] == pytest.approx(0, abs=1e-3)
    costs[at] = np.inf
    assert costs.min() > 8


@pytest.mark.parametrize("spec", SPECS)
def test_the_hull_covers_the_body_that_was_painted(spec):
    film = smooth(to_rgb(render_shot(spec, 0)))
    hull = find_character(film, setting(spec), PICTURE)
    seen = poses(spec.shape, spec.shots[0], 21, PICTURE)
    x, y = PICTURE.grid()
    for frame in range(0, 21, 4):
        right, down = (x - seen.x[frame]) / seen.radius, (y - seen.y[frame]) / seen.radius
        cos, sin = np.cos(seen.angle[frame]), np.sin(seen.angle[frame])
        body = body_distance(spec.shape, cos * right + sin * down, cos * down - sin * right) < 0
        overlap = (hull[frame] & body).sum() / (hull[frame] | body).sum()
        assert overlap > 0.8


@pytest.mark.parametrize("spec", SPECS)
def test_a_faded_film_gets_its_colours_back(spec):
    film = render_shot(spec, 0)
    true = to_rgb(film)
    faded = to_rgb(fade(film, np.random.default_rng(0)))
    restored = restore_colours(faded, setting(spec), PICTURE)
    empty = np.abs(true - backdrop(*setting(spec), PICTURE)).max(-1) < 1
    assert np.abs(restored - true)[empty].mean() < 0.5 * np.abs(faded - true)[empty].mean()


def test_a_true_film_keeps_its_colours():
    for spec in SPECS:
        film = to_rgb(render_shot(spec, 0))
        restored = restore_colours(film, setting(spec), PICTURE)
        assert np.abs(restored - film).mean() < 1
