"""Stored films hand out only the frames that are asked for."""

import numpy as np

from shotstream_jax.data.sources import StoredFilm


def test_a_stored_film_hands_out_its_frames():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 16, 32, 3)).astype(np.uint8)
    film = StoredFilm(pixels, ("one", "two"))
    assert film.shot_lengths == (5, 5)
    np.testing.assert_array_equal(film.frames(1), pixels[1])
    np.testing.assert_array_equal(film.frames(1, [4, 0]), pixels[1, [4, 0]])
