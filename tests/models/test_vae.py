"""The autoencoder against what it promises, on miniatures with random weights and biases."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models import vae
from shotstream_jax.models.configs import WAN_VAE, VAEConfig
from shotstream_jax.models.vae_decoder import Upsample

SIZES = {"latent_channels": 3, "latent_mean": (0.5, -1.0, 0.2), "latent_std": (2.0, 0.7, 1.3)}
FOUR_STAGES = VAEConfig(base_channels=4, residual_blocks=1, **SIZES)
THREE_STAGES = VAEConfig(
    base_channels=4,
    multipliers=(1, 2, 4),
    residual_blocks=1,
    temporal_downsample=(True, True),
    **SIZES,
)
TWO_STAGES = VAEConfig(
    base_channels=4, multipliers=(1, 2), residual_blocks=1, temporal_downsample=(True,), **SIZES
)
MINIATURES = pytest.mark.parametrize("config", [FOUR_STAGES, THREE_STAGES], ids=["four", "three"])
HEIGHT, WIDTH = 16, 24

STATIC = ("config", "dtype", "conv_impl")
encode = jax.jit(vae.encode, static_argnames=STATIC)
encode_moments = jax.jit(vae.encode_moments, static_argnames=STATIC)
encode_images = jax.jit(vae.encode_images, static_argnames=STATIC)
decode = jax.jit(vae.decode, static_argnames=STATIC)


@functools.cache
def random_params(config):
    """Weights in which no scale is one and no bias zero."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        noise = rng.standard_normal(leaf.shape)
        match path[-1].key:
            case "kernel":
                return noise / np.sqrt(np.prod(leaf.shape[:-1]))
            case kind:
                return 0.1 * noise + (kind == "scale")

    shapes = jax.eval_shape(lambda: vae.init_vae(jax.random.key(0), config))
    # The first caller may be a function that is being traced.
    with jax.ensure_compile_time_eval():
        return jax.tree.map(
            lambda x: jnp.asarray(x, jnp.float32), jax.tree.map_with_path(fill, shapes)
        )


def random_pixels(frames, batch=1):
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.uniform(-1, 1, (batch, frames, HEIGHT, WIDTH, 3)), jnp.float32)


def random_latents(config, frames, batch=1):
    rows, cols = config.latent_grid(HEIGHT, WIDTH)
    shape = (batch, frames, rows, cols, config.latent_channels)
    return jnp.asarray(np.random.default_rng(2).standard_normal(shape), jnp.float32)


def assert_close(actual, expected, relative):
    expected = np.asarray(expected, np.float64)
    error = np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()
    assert error <= relative, f"relative error {error:.2e}"


def frames_reached(gradient):
    """Which frames of a clip a gradient is not exactly zero at."""
    return [bool(np.any(frame)) for frame in np.moveaxis(np.asarray(gradient), 1, 0)]


@MINIATURES
@pytest.mark.parametrize("latent_frames", [1, 2, 3])
def test_there_and_back_keeps_the_size_of_a_clip(config, latent_frames):
    pixels = random_pixels(config.video_frames(latent_frames), batch=2)
    latents = jax.eval_shape(lambda x: vae.encode(random_params(config), config, x), pixels)
    rows, cols = config.latent_grid(HEIGHT, WIDTH)
    assert latents.shape == (2, latent_frames, rows, cols, config.latent_channels)
    again = jax.eval_shape(lambda z: vae.decode(random_params(config), config, z), latents)
    assert again.shape == pixels.shape


@MINIATURES
def test_a_latent_frame_sees_its_own_video_frames_and_earlier_ones_only(config):
    pixels = random_pixels(config.video_frames(3))

    @jax.jit
    @jax.grad
    def influence(pixels, frame):
        latents = vae.encode(random_params(config), config, pixels)
        return jnp.sum(jnp.square(latents[:, frame]))

    for frame in range(3):
        newest = config.video_frames(frame + 1)
        reached = frames_reached(influence(pixels, frame))
        assert reached == [True] * newest + [False] * (len(reached) - newest)


@MINIATURES
def test_video_frames_come_from_their_own_latent_frame_and_earlier_ones_only(config):
    latents = random_latents(config, 3)

    @jax.jit
    @jax.grad
    def influence(latents, video_frame):
        pixels = vae.decode(random_params(config), config, latents)
        return jnp.sum(jnp.square(pixels[:, video_frame]))

    stride = config.temporal_stride
    for video_frame, newest in [(0, 0), (1, 1), (stride, 1), (stride + 1, 2), (2 * stride, 2)]:
        reached = frames_reached(influence(latents, video_frame))
        assert reached == [True] * (newest + 1) + [False] * (2 - newest)


def test_temporal_up_convolution_never_sees_the_first_frame():
    up = Upsample(doubles_time=True, dtype=jnp.float32)
    x = jnp.asarray(np.random.default_rng(3).standard_normal((1, 3, 2, 2, 4)), jnp.float32)
    params = up.init(jax.random.key(0), x, None)
    assert up.apply(params, x, None)[0].shape[1] == 5

    @jax.jit
    @jax.grad
    def influence(x, frame):
        return jnp.sum(jnp.square(up.apply(params, x, None)[0][:, frame]))

    reached = [frames_reached(influence(x, frame)) for frame in range(5)]
    assert reached[0] == [True, False, False]
    assert reached[1] == reached[2] == [False, True, False]
    assert reached[3] == reached[4] == [False, True, True]


def test_images_are_clips_of_one_frame():
    images = random_pixels(3, batch=2)
    latents = encode_images(random_params(TWO_STAGES), TWO_STAGES, images)
    assert latents.shape[:2] == (2, 3)
    for frame in range(3):
        clip = images[:, frame : frame + 1]
        alone = encode(random_params(TWO_STAGES), TWO_STAGES, clip)
        assert_close(latents[:, frame : frame + 1], alone, 1e-5)


def test_an_image_meets_only_the_last_tap_of_any_kernel():
    def energy(params):
        latents = vae.encode_images(params, TWO_STAGES, random_pixels(1))
        return jnp.sum(jnp.square(latents))

    gradient = jax.jit(jax.grad(energy))(random_params(TWO_STAGES))["encoder"]
    kernels = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree.leaves_with_path(gradient)
        if leaf.ndim in (3, 5)
    }
    assert any("time_conv" in name for name in kernels)
    for name, kernel in kernels.items():
        assert not np.any(kernel[:-1]), name
        assert np.any(kernel[-1]) == ("time_conv" not in name), name


def test_conv_impls_agree_with_their_gradients():
    config = TWO_STAGES
    pixels = random_pixels(config.video_frames(3))
    weight = np.random.default_rng(4).standard_normal(pixels.shape).astype(np.float32)

    def there_and_back(params, conv_impl):
        mean, log_variance = vae.encode_moments(params, config, pixels, conv_impl=conv_impl)
        again = vae.decode(params, config, mean + jnp.exp(log_variance / 2), conv_impl=conv_impl)
        return jnp.sum(again * weight)

    run = jax.jit(jax.value_and_grad(there_and_back), static_argnums=1)
    stacked, stacked_gradient = run(random_params(config), "stacked")
    direct, direct_gradient = run(random_params(config), "conv3d")
    np.testing.assert_allclose(stacked, direct, rtol=1e-4)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(direct_gradient))
    for one, other in zip(
        jax.tree.leaves(stacked_gradient), jax.tree.leaves(direct_gradient), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * largest)


def test_latents_are_normalised_means():
    params, pixels = random_params(TWO_STAGES), random_pixels(5)
    mean, log_variance = encode_moments(params, TWO_STAGES, pixels)
    assert mean.shape == log_variance.shape
    assert np.any(mean != log_variance)
    expected = (np.asarray(mean) - SIZES["latent_mean"]) / SIZES["latent_std"]
    assert_close(encode(params, TWO_STAGES, pixels), expected, 1e-5)
    latents = vae.normalise_latents(TWO_STAGES, mean)
    np.testing.assert_allclose(
        vae.denormalise_latents(TWO_STAGES, latents), mean, rtol=1e-5, atol=1e-6
    )


def test_half_precision_computes_nearly_the_same_and_returns_float32():
    params, latents = random_params(TWO_STAGES), random_latents(TWO_STAGES, 2)
    exact, rough = (decode(params, TWO_STAGES, latents, dtype=d) for d in ("float32", "bfloat16"))
    assert rough.dtype == jnp.float32
    assert_close(rough, exact, 0.05)
    assert np.any(rough != exact)


def test_parameters_kept_in_half_precision_still_compute_in_float32():
    kept = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_params(TWO_STAGES))
    widened = jax.tree.map(lambda x: x.astype(jnp.float32), kept)
    latents = random_latents(TWO_STAGES, 2)
    expected = decode(widened, TWO_STAGES, latents)
    assert_close(decode(kept, TWO_STAGES, latents), expected, 1e-5)


def test_gradient_reaches_every_parameter_and_is_finite_even_for_a_blank_clip():
    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradient(params, pixels):
        mean, log_variance = vae.encode_moments(params, TWO_STAGES, pixels)
        latents = vae.normalise_latents(TWO_STAGES, mean + jnp.exp(log_variance / 2))
        return jnp.mean(jnp.abs(vae.decode(params, TWO_STAGES, latents) - 1))

    for leaf in jax.tree.leaves(gradient(random_params(TWO_STAGES), random_pixels(5))):
        assert np.all(np.isfinite(leaf))
        assert np.any(leaf)
    new = vae.init_vae(jax.random.key(1), TWO_STAGES)
    for leaf in jax.tree.leaves(gradient(new, 0 * random_pixels(5))):
        assert np.all(np.isfinite(leaf))


def test_random_parameters_keep_the_size_of_signals():
    params = vae.init_vae(jax.random.key(0), THREE_STAGES)
    seen = set()
    for path, leaf in jax.tree.leaves_with_path(params):
        kind = path[-1].key
        if kind == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            spread = 5 / np.sqrt(2 * leaf.size)
            np.testing.assert_allclose(np.std(leaf) * np.sqrt(fan_in), 1, atol=spread)
            seen.add(float(leaf.ravel()[0]) * np.sqrt(fan_in))
        else:
            np.testing.assert_array_equal(leaf, 1.0 if kind == "scale" else 0.0)
    kernels = [path for path, _ in jax.tree.leaves_with_path(params) if path[-1].key == "kernel"]
    assert len(seen) == len(kernels)


def test_wan_sizes():
    assert (WAN_VAE.spatial_stride, WAN_VAE.temporal_stride, WAN_VAE.stages) == (8, 4, 4)
    assert WAN_VAE.latent_grid(480, 832) == (60, 104)
    assert [WAN_VAE.video_frames(frames) for frames in (1, 2, 21)] == [1, 5, 81]
    assert [WAN_VAE.latent_frames(frames) for frames in (1, 5, 81)] == [1, 2, 21]
    params = jax.eval_shape(lambda: vae.init_vae(jax.random.key(0), WAN_VAE))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 126_892_531
    assert (THREE_STAGES.spatial_stride, THREE_STAGES.temporal_stride) == (4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_channels": 0}, "base_channels 0 must be at least 1"),
        ({"residual_blocks": 0}, "residual_blocks 0"),
        ({"temporal_downsample": (True,)}, "4 multipliers make 3 changes of stage, .* has 1 flags"),
        ({"multipliers": (1, 2, 4)}, "3 multipliers make 2 changes of stage, .* has 3 flags"),
        ({"base_channels": 3, "multipliers": (1, 2, 3, 4)}, "base_channels 3 times multiplier 3"),
        ({"latent_channels": 4}, "latent_mean has 3 values for 4 latent channels"),
        ({"latent_std": (1.0, 1.0)}, "latent_std has 2 values for 3 latent channels"),
        ({"latent_std": (1.0, 0.0, 1.0)}, r"latent_std \(1.0, 0.0, 1.0\) must be positive"),
        ({"latent_std": (1.0, float("nan"), 1.0)}, "latent_std .*nan.* must be positive"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        VAEConfig(**{"base_channels": 4, **SIZES, **changes})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 16, 24, 3), "4 video frames are not 1 and a multiple of 4; cut .* 1 .* fill .* 5"),
        ((1, 7, 16, 24, 3), "7 video frames .* cut the clip to 5 frames or fill it to 9"),
        ((1, 0, 16, 24, 3), "0 video frames .* cut the clip to 1 frames"),
        ((1, 5, 20, 24, 3), "20x24 pixels .* 8x8"),
        ((1, 5, 16, 4, 3), "16x4 pixels .* 8x8"),
    ],
)
def test_clips_that_do_not_divide_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        vae.encode(random_params(FOUR_STAGES), FOUR_STAGES, jnp.zeros(shape))


def test_no_frames_are_no_clip():
    with pytest.raises(ValueError, match=re.escape("0 latent frames make no clip")):
        FOUR_STAGES.video_frames(0)
