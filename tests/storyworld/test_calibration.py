"""Spoilers spoil, and the oracle's accuracy is that of the films it is given."""

import numpy as np
import pytest

from shotstream_jax.storyworld.calibration import NOISE_SIGMA, SPOILERS, oracle_accuracy
from shotstream_jax.storyworld.render import render_shot
from shotstream_jax.storyworld.spec import sample_story


@pytest.mark.parametrize("name", SPOILERS)
def test_a_spoilt_film_has_the_size_of_the_film(name):
    film = render_shot(sample_story(0, 1), 0)
    spoilt = SPOILERS[name](film, np.random.default_rng(0))
    assert spoilt.shape == film.shape
    assert spoilt.dtype == np.uint8
    assert np.array_equal(spoilt, film) is (name == "clean")
    assert spoilt.mean() == pytest.approx(film.mean(), abs=6)


def test_blur_is_a_gaussian_of_one_pixel():
    dot = np.zeros((1, 16, 32, 3), np.uint8)
    dot[0, 8, 16] = 255
    spread = SPOILERS["blur"](dot, np.random.default_rng(0))[0, :, :, 0].astype(float)
    assert spread[8, 16] == pytest.approx(255 / (2 * np.pi), rel=0.02)
    assert spread[8, 17] / spread[8, 16] == pytest.approx(np.exp(-0.5), rel=0.05)
    np.testing.assert_array_equal(spread[:, 16], spread[8, 8:24])


def test_noise_has_its_sigma():
    grey = np.full((4, 64, 96, 3), 128, np.uint8)
    noisy = SPOILERS["noise"](grey, np.random.default_rng(0)).astype(float)
    assert noisy.std() == pytest.approx(255 * NOISE_SIGMA, rel=0.02)


def test_accuracy_counts_errors():
    stories = [sample_story(0, 1, index=i) for i in range(4)]

    def erase(film, rng):
        return np.zeros_like(film) if rng.random() < 0.5 else film

    accuracy = oracle_accuracy(stories, spoil=erase, seed=0)
    drawn = np.random.default_rng(0).random(4)
    assert accuracy["shape"] == (drawn >= 0.5).mean()
