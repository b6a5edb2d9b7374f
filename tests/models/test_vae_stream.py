"""Decoding in pieces against decoding at once, on miniatures with random weights and biases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models import vae, vae_stream
from shotstream_jax.models.vae_config import WAN_VAE, VAEConfig
from shotstream_jax.models.vae_decoder import start_of_clip

SIZES = {"latent_channels": 3, "latent_mean": (0.5, -1.0, 0.2), "latent_std": (2.0, 0.7, 1.3)}
FOUR_STAGES = VAEConfig(base_channels=4, residual_blocks=2, **SIZES)
THREE_STAGES = VAEConfig(
    base_channels=4,
    multipliers=(1, 2, 4),
    residual_blocks=1,
    temporal_downsample=(True, False),
    **SIZES,
)
MINIATURES = pytest.mark.parametrize("config", [FOUR_STAGES, THREE_STAGES], ids=["four", "three"])
ROWS, COLS, FRAMES = 2, 3, 5

STATIC = ("config", "dtype", "lowering")
decode = jax.jit(vae.decode, static_argnames=STATIC)
decode_first = jax.jit(vae_stream.decode_first, static_argnames=STATIC)
decode_next = jax.jit(vae_stream.decode_next, static_argnames=STATIC)


@functools.cache
def random_params(config):
    params = jax.jit(vae.init_vae, static_argnums=1)(jax.random.key(0), config)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape).astype(x.dtype), params)


def random_latents(config, frames=FRAMES, batch=1):
    shape = (batch, frames, ROWS, COLS, config.latent_channels)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def decode_in_pieces(config, latents, pieces, **compute):
    """Pixels of all pieces, and the cache after the last."""
    first, *rest = np.split(latents, np.cumsum(pieces)[:-1], axis=1)
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


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@MINIATURES
@pytest.mark.parametrize("pieces", [[1, 1, 1, 1, 1], [1, 4], [1, 2, 2], [2, 3], [3, 1, 1], [5]])
def test_pieces_of_any_length_are_the_whole(config, pieces):
    latents = random_latents(config, batch=2)
    whole = decode(random_params(config), config, latents)
    film, _ = decode_in_pieces(config, latents, pieces)
    assert_close(film, whole)


@MINIATURES
def test_the_cache_does_not_know_how_the_film_was_cut(config):
    latents = random_latents(config)
    _, expected = decode_in_pieces(config, latents, [1, 1, 1, 1, 1])
    for pieces in ([1, 4], [3, 2], [5]):
        _, cache = decode_in_pieces(config, latents, pieces)
        jax.tree.map(assert_close, cache, expected)


@MINIATURES
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_cache_has_one_shape_from_first_to_last(config, dtype):
    expected = shapes(vae_stream.init_decoder_cache(config, 2, ROWS, COLS, dtype))
    for pieces in ([1], [1, 1], [1, 3], [3, 1]):
        latents = random_latents(config, sum(pieces), batch=2)
        _, cache = decode_in_pieces(config, latents, pieces, dtype=dtype)
        assert shapes(cache) == expected
    assert {leaf.dtype for leaf in jax.tree.leaves(cache)} == {jnp.dtype(dtype)}


def test_a_new_cache_is_zero():
    cache = vae_stream.init_decoder_cache(FOUR_STAGES, 1, ROWS, COLS)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(cache))


def test_the_cache_holds_two_frames_a_temporal_convolution_and_nothing_else():
    cache = jax.eval_shape(lambda: vae_stream.init_decoder_cache(WAN_VAE, 1, 60, 104, jnp.bfloat16))
    leaves = jax.tree.leaves(cache)
    assert len(leaves) == 32
    assert {leaf.shape[1] for leaf in leaves} == {2}
    assert sum(leaf.size for leaf in leaves) == 944_286_720


def test_the_cache_can_be_overwritten_in_place():
    cache = vae_stream.init_decoder_cache(FOUR_STAGES, 1, ROWS, COLS)
    donating = jax.jit(
        vae_stream.decode_next, static_argnames=STATIC, donate_argnames="cache"
    ).lower(random_params(FOUR_STAGES), FOUR_STAGES, cache, random_latents(FOUR_STAGES, 3))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(cache))
    assert donating.compile().memory_analysis().alias_size_in_bytes == size


@MINIATURES
def test_lowerings_agree(config):
    latents = random_latents(config)
    stacked, stacked_cache = decode_in_pieces(config, latents, [1, 2, 2], lowering="stacked")
    direct, direct_cache = decode_in_pieces(config, latents, [1, 2, 2], lowering="conv3d")
    assert_close(stacked, direct)
    jax.tree.map(assert_close, stacked_cache, direct_cache)


def test_half_precision_in_pieces_is_half_precision_at_once():
    latents = random_latents(FOUR_STAGES)
    whole = decode(random_params(FOUR_STAGES), FOUR_STAGES, latents, dtype=jnp.bfloat16)
    film, _ = decode_in_pieces(FOUR_STAGES, latents, [1, 2, 2], dtype=jnp.bfloat16)
    assert film.dtype == np.float32
    assert_close(film, whole, relative=0.02)


def test_full_size_traces():
    params = jax.eval_shape(lambda: vae.init_vae(jax.random.key(0), WAN_VAE))
    latents = jax.ShapeDtypeStruct((1, 3, 60, 104, 16), jnp.float32)
    first, cache = jax.eval_shape(
        lambda *args: vae_stream.decode_first(args[0], WAN_VAE, args[1], dtype=jnp.bfloat16),
        params,
        latents,
    )
    following, _ = jax.eval_shape(
        lambda *args: vae_stream.decode_next(args[0], WAN_VAE, *args[1:], dtype=jnp.bfloat16),
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
    cache = vae_stream.init_decoder_cache(FOUR_STAGES, 1, ROWS, COLS)
    with pytest.raises(ValueError, match="decode a clip from first to last") as refusal:
        vae_stream.decode_next(
            random_params(FOUR_STAGES), FOUR_STAGES, cache, jnp.zeros(latents), dtype=dtype
        )
    assert held in str(refusal.value)
    assert asked in str(refusal.value)


def test_a_clip_not_begun_does_not_go_on():
    with pytest.raises(ValueError, match="call decode_first"):
        vae_stream.decode_next(
            random_params(FOUR_STAGES),
            FOUR_STAGES,
            start_of_clip(FOUR_STAGES),
            jnp.asarray(random_latents(FOUR_STAGES, 1)),
        )
