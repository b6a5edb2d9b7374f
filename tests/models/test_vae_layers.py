import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models.vae_layers import (
    ChannelNorm,
    causal_conv,
    default_conv_impl,
    frames_to_pixels,
    pixels_to_frames,
)


@pytest.mark.parametrize("conv_impl", ["stacked", "conv3d"])
@pytest.mark.parametrize("past_frames", [0, 2])
def test_convolution_is_the_sum_over_its_taps(conv_impl, past_frames):
    rng = np.random.default_rng(5)
    x, kernel = rng.standard_normal((1, 3, 1, 1, 2)), rng.standard_normal((3, 3, 3, 2, 4))
    past = rng.standard_normal((1, past_frames, 1, 1, 2))
    padded = np.concatenate([np.zeros((1, 2 - past_frames, 1, 1, 2)), past, x], axis=1)[0, :, 0, 0]
    # A picture of one pixel meets the centre of the kernel only.
    expected = [
        sum(padded[frame + tap] @ kernel[tap, 1, 1] for tap in range(3)) for frame in range(3)
    ]
    x, kernel, past = (jnp.asarray(value, jnp.float32) for value in (x, kernel, past))
    actual = causal_conv(x, past if past_frames else None, kernel, conv_impl=conv_impl)
    np.testing.assert_allclose(actual[0, :, 0, 0], np.stack(expected), rtol=1e-5)


def test_a_cpu_stacks_taps_and_accelerators_convolve_in_three_dimensions():
    assert default_conv_impl("cpu") == "stacked"
    assert {default_conv_impl(platform) for platform in ("gpu", "tpu")} == {"conv3d"}
    assert default_conv_impl() == default_conv_impl(jax.default_backend())


def test_norm_scales_channels_to_unit_mean_square():
    x = jnp.asarray([[[[[3.0, -4.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]]]])
    norm = ChannelNorm(jnp.float32)
    params = {"params": {"scale": jnp.asarray([1.0, 2.0, 3.0, 4.0])}}
    expected = [[[[[1.2, -3.2, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]]]]
    np.testing.assert_allclose(norm.apply(params, x), expected, rtol=1e-6)


def test_every_8_bit_colour_survives_the_round_trip():
    frames = jnp.arange(256, dtype=jnp.uint8)[None, :, None].repeat(3, -1)
    np.testing.assert_array_equal(pixels_to_frames(frames_to_pixels(frames)), frames)


def test_black_and_white_are_the_ends_of_the_range():
    frames = jnp.asarray([0, 255], jnp.uint8)[None, :, None].repeat(3, -1)
    np.testing.assert_array_equal(frames_to_pixels(frames)[0, :, 0], [-1, 1])


def test_pixels_round_to_the_nearest_colour_and_are_clipped():
    pixels = jnp.asarray([-7.0, -0.999, 100.6 / 127.5 - 1, 1.7])[None, :, None].repeat(3, -1)
    np.testing.assert_array_equal(pixels_to_frames(pixels)[0, :, 0], [0, 0, 101, 255])
