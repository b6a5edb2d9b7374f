"""Decoding in pieces against decoding at once, on miniatures with random weights and biases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models import vae
from shotstream_jax.models.configs import WAN_VAE, VAEConfig
from shotstream_jax.models.vae_decoder import start_of_clip

SIZES = {"latent_channels": 3, "latent_mean": (0.5, -1.0, 0.2), "latent_std": (2.0, 0.7, 1.3)}
FOUR_STAGES = VAEConfig(base_channels=4, residual_blocks=1, **SIZES)
THREE_STAGES = VAEConfig(
    base_channels=4,
    multipliers=(1, 2, 4),
    residual_blocks=1,
    temporal_downsample=(True, False),
    **SIZES,
)
BATCH, ROWS, COLS, FRAMES = 2, 2, 3, 4

STATIC = ("config", "dtype", "conv_impl")
decode = jax.jit(vae.decode, static_argnames=STATIC)
decode_first = jax.jit(vae.decode_first, static_argnames=STATIC)
decode_next = jax.jit(vae.decode_next, static_argnames=STATIC)


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


def random_latents(config, frames=FRAMES):
    shape = (BATCH, frames, ROWS, COLS, config.latent_channels)
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)


def decode_in_pieces(config, latents, pieces, **compute):
    """Pixels of all pieces, and the cache after the last."""
    first, *rest = jnp.split(latents, np.cumsum(pieces)[:-1], axis=1)
    pixels, cache = decode_first(random_params(config), config, first, **compute)
    film = [pixels]
    for piece in rest:
        pixels, cache = decode_next(random_params(config), config, cache, piece, **compute)
        assert pixels.shape[1] == piece.shape[1] * config.temporal_stride
        film.append(pixels)
    return np.concatenate(film, axis=1), cache


def assert_close(actual, expected, relative=1e-5):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error <= relative, f"relative error {error:.2e}"


def assert_same_cache(actual, expected):
    # Norms magnify the rounding of positions that are nearly zero, so this is golden tolerance.
    jax.tree.map(functools.partial(assert_close, relative=1e-4), actual, expected)


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize(
    ("config", "cuts"),
    [(FOUR_STAGES, ([1, 1, 1, 1], [1, 3], [3, 1])), (THREE_STAGES, ([1, 3],))],
    ids=["four", "three"],
)
def test_pieces_of_any_length_are_the_whole(config, cuts):
    latents = random_latents(config)
    whole, expected = decode_in_pieces(config, latents, [FRAMES])
    assert_close(decode(random_params(config), config, latents), whole)
    for pieces in cuts:
        film, cache = decode_in_pieces(config, latents, pieces)
        assert_close(film, whole)
        assert_same_cache(cache, expected)


@pytest.mark.parametrize("frames", [1, FRAMES])
def test_frame_after_frame_is_the_whole(frames):
    latents = random_latents(FOUR_STAGES)[:, :frames]
    in_turn = jax.jit(vae.decode_frame_by_frame, static_argnames=("config", "dtype"))
    params = random_params(FOUR_STAGES)
    assert_close(in_turn(params, FOUR_STAGES, latents), decode(params, FOUR_STAGES, latents))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_cache_has_one_shape_from_first_to_last(dtype):
    params = random_params(FOUR_STAGES)
    expected = shapes(vae.init_decoder_cache(FOUR_STAGES, BATCH, ROWS, COLS, dtype))
    compute = {"config": FOUR_STAGES, "dtype": dtype}
    for frames in (1, 2, 3):
        begin = functools.partial(vae.decode_first, **compute)
        latents = random_latents(FOUR_STAGES, frames)
        _, cache = jax.eval_shape(lambda z, f=begin: f(params, latents=z), latents)
        assert shapes(cache) == expected
        go_on = functools.partial(vae.decode_next, **compute)
        _, cache = jax.eval_shape(
            lambda c, z, f=go_on: f(params, cache=c, latents=z), cache, latents
        )
        assert shapes(cache) == expected
    assert {leaf.dtype for leaf in jax.tree.leaves(cache)} == {jnp.dtype(dtype)}


def test_a_new_cache_is_zero():
    cache = vae.init_decoder_cache(FOUR_STAGES, BATCH, ROWS, COLS)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(cache))


def test_the_cache_holds_two_frames_a_temporal_convolution_and_nothing_else():
    cache = jax.eval_shape(lambda: vae.init_decoder_cache(WAN_VAE, 1, 60, 104, jnp.bfloat16))
    leaves = jax.tree.leaves(cache)
    assert len(leaves) == 32
    assert {leaf.shape[1] for leaf in leaves} == {2}
    assert sum(leaf.size for leaf in leaves) == 944_286_720


def test_the_cache_can_be_overwritten_in_place():
    cache = vae.init_decoder_cache(THREE_STAGES, BATCH, ROWS, COLS)
    donating = jax.jit(vae.decode_next, static_argnames=STATIC, donate_argnames="cache").lower(
        random_params(THREE_STAGES), THREE_STAGES, cache, random_latents(THREE_STAGES, 3)
    )
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(cache))
    assert donating.compile().memory_analysis().alias_size_in_bytes == size


def test_conv_impls_agree():
    params, latents = random_params(FOUR_STAGES), random_latents(FOUR_STAGES)
    _, cache = decode_first(params, FOUR_STAGES, latents[:, :1])
    stacked, stacked_cache = decode_next(
        params, FOUR_STAGES, cache, latents[:, 1:], conv_impl="stacked"
    )
    direct, direct_cache = decode_next(
        params, FOUR_STAGES, cache, latents[:, 1:], conv_impl="conv3d"
    )
    assert_close(stacked, direct)
    assert_same_cache(stacked_cache, direct_cache)


def test_half_precision_in_pieces_is_half_precision_at_once():
    latents = random_latents(THREE_STAGES)
    whole = decode(random_params(THREE_STAGES), THREE_STAGES, latents, dtype=jnp.bfloat16)
    film, _ = decode_in_pieces(THREE_STAGES, latents, [1, 3], dtype=jnp.bfloat16)
    assert film.dtype == np.float32
    assert_close(film, whole, relative=0.02)


def test_full_size_traces():
    params = jax.eval_shape(lambda: vae.init_vae(jax.random.key(0), WAN_VAE))
    latents = jax.ShapeDtypeStruct((1, 3, 60, 104, 16), jnp.float32)
    first, cache = jax.eval_shape(
        lambda *args: vae.decode_first(args[0], WAN_VAE, args[1], dtype=jnp.bfloat16),
        params,
        latents,
    )
    following, _ = jax.eval_shape(
        lambda *args: vae.decode_next(args[0], WAN_VAE, *args[1:], dtype=jnp.bfloat16),
        params,
        cache,
        latents,
    )
    assert (first.shape, following.shape) == ((1, 9, 480, 832, 3), (1, 12, 480, 832, 3))


@pytest.mark.parametrize(
    ("latents", "dtype", "held", "asked"),
    [
        ((2, 1, ROWS, COLS, 3), jnp.float32, "(1, 2, 3, 'float32')", "(2, 2, 3, 'float32')"),
        ((1, 1, COLS, ROWS, 3), jnp.float32, "(1, 2, 3, 'float32')", "(1, 3, 2, 'float32')"),
        ((1, 1, ROWS, COLS, 3), jnp.bfloat16, "(1, 2, 3, 'float32')", "(1, 2, 3, 'bfloat16')"),
    ],
)
def test_the_cache_of_another_clip_is_refused(latents, dtype, held, asked):
    cache = vae.init_decoder_cache(FOUR_STAGES, 1, ROWS, COLS)
    with pytest.raises(ValueError, match="decode a clip from first to last") as refusal:
        vae.decode_next(
            random_params(FOUR_STAGES), FOUR_STAGES, cache, jnp.zeros(latents), dtype=dtype
        )
    assert held in str(refusal.value)
    assert asked in str(refusal.value)


def test_a_clip_not_begun_does_not_go_on():
    with pytest.raises(ValueError, match="call decode_first"):
        vae.decode_next(
            random_params(FOUR_STAGES),
            FOUR_STAGES,
            start_of_clip(FOUR_STAGES),
            random_latents(FOUR_STAGES, 1),
        )
