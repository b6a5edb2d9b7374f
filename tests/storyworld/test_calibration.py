"""Accuracy counts errors; and the corruptions that it is measured under do what they say."""

import numpy as np
import pytest

from shotstream_jax.storyworld.calibration import oracle_accuracy
from shotstream_jax.storyworld.render import render_shot
from shotstream_jax.storyworld.spec import sample_story
from tests.storyworld.corruptions import CORRUPTIONS, NOISE_SIGMA, corruption


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_film_has_the_size_and_brightness_of_the_film(name):
    film = render_shot(sample_story(0, 1), 0)
    corrupted = corruption(name)(film)
    assert corrupted.shape == film.shape
    assert corrupted.dtype == np.uint8
    assert not np.array_equal(corrupted, film)
    assert corrupted.mean() == pytest.approx(film.mean(), abs=6)


def test_blur_is_a_gaussian_of_one_pixel():
    dot = np.zeros((1, 16, 32, 3), np.uint8)
    dot[0, 8, 16] = 255
    spread = corruption("blur")(dot)[0, :, :, 0].astype(float)
    assert spread[8, 16] == pytest.approx(255 / (2 * np.pi), rel=0.02)
    assert spread[8, 17] / spread[8, 16] == pytest.approx(np.exp(-0.5), rel=0.05)
    np.testing.assert_array_equal(spread[:, 16], spread[8, 8:24])


def test_noise_has_its_sigma():
    grey = np.full((4, 64, 96, 3), 128, np.uint8)
    noisy = corruption("noise")(grey).astype(float)
    assert noisy.std() == pytest.approx(255 * NOISE_SIGMA, rel=0.02)


def test_accuracy_counts_errors():
    stories = [sample_story(0, 1, index=i) for i in range(4)]
    erased = iter([True, False, False, True])
    accuracy = oracle_accuracy(
        stories, corrupt=lambda film: np.zeros_like(film) if next(erased) else film
    )
    assert accuracy["shape"] == 0.5


def test_without_a_corruption_films_are_measured_as_they_are():
    stories = [sample_story(0, 2, index=i) for i in range(4)]
    assert set(oracle_accuracy(stories).values()) == {1.0}
