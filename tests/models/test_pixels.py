import jax.numpy as jnp
import numpy as np

from shotstream_jax.models.pixels import frames_to_pixels, pixels_to_frames


def test_every_8_bit_colour_survives_the_round_trip():
    frames = jnp.arange(256, dtype=jnp.uint8)[None, :, None].repeat(3, -1)
    np.testing.assert_array_equal(pixels_to_frames(frames_to_pixels(frames)), frames)


def test_black_and_white_are_the_ends_of_the_range():
    frames = jnp.asarray([0, 255], jnp.uint8)[None, :, None].repeat(3, -1)
    np.testing.assert_array_equal(frames_to_pixels(frames)[0, :, 0], [-1, 1])


def test_pixels_round_to_the_nearest_colour_and_are_clipped():
    pixels = jnp.asarray([-7.0, -0.999, 100.6 / 127.5 - 1, 1.7])[None, :, None].repeat(3, -1)
    np.testing.assert_array_equal(pixels_to_frames(pixels)[0, :, 0], [0, 0, 101, 255])
