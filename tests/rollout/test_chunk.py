"""Numbers of chunks beyond the trained length, and keys that are turned back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models.cache import KeyValue, init_cache, write_chunk, write_context
from shotstream_jax.models.dit import encode_captions
from shotstream_jax.models.quantise import dequantise
from shotstream_jax.models.rope import grid_positions, rotate, rotation
from shotstream_jax.rollout.chunk import check_positions, chunk_number, turn_keys_back

ROWS, COLS = 2, 3
TOKENS = ROWS * COLS


def with_window(networks, trained=None, **window):
    rollout = networks.config.rollout
    window = dataclasses.replace(rollout.window, **window)
    rollout = dataclasses.replace(rollout, window=window, trained_chunks=trained)
    return dataclasses.replace(networks.config, rollout=rollout)


@pytest.mark.parametrize(
    ("positions", "numbers"),
    [
        ("running", [0, 1, 2, 3, 4]),
        ("rebased", [0, 1, 2, 2, 2]),
        ("turned", [0, 1, 2, 2, 2]),
    ],
)
def test_numbers_of_a_model_of_three_trained_chunks(networks, positions, numbers):
    config = with_window(networks, trained=3)
    assert [chunk_number(config, positions, chunk) for chunk in range(5)] == numbers


def test_positions_that_the_cache_cannot_hold_are_refused(networks):
    chunk = networks.config.rollout.window.chunk
    wide = with_window(networks, trained=4)
    with pytest.raises(ValueError, match="4 trained chunks; this one holds 3"):
        check_positions(wide, "turned", 3)
    with pytest.raises(ValueError, match=f"a sink of {chunk} frames"):
        check_positions(with_window(networks, trained=3, sink=chunk), "rebased", 3)
    check_positions(wide, "running", 3)


@pytest.mark.parametrize("in_int8", [False, True])
def test_turned_keys_are_those_of_the_numbers_below(networks, in_int8):
    """Three chunks of unrotated keys k0 k1 k2 at numbers 0 1 2 become k1 k2 at numbers 0 1."""
    config, window = networks.config.dit, networks.config.rollout.window
    text = encode_captions(networks.dit, config, networks.encode_text(["a"])[None])
    cache = init_cache(config, window, text, TOKENS, in_int8=in_int8)

    def raw(seed, frames):
        shape = (config.layers, 1, frames * TOKENS, config.heads, config.head_dim)
        return jax.random.normal(jax.random.key(seed), shape)

    def at(keys, first, frames):
        """Keys rotated as frames `first` and following of shot 4."""
        numbers = jnp.arange(first, first + frames)[None]
        positions = grid_positions(numbers, jnp.full_like(numbers, 4), ROWS, COLS)
        angles = rotation(positions, config.head_dim, config.shot_phase)
        return jax.vmap(rotate, in_axes=(0, None))(keys, angles)

    def kv(key, value):
        return KeyValue(key=key, value=value)

    context = kv(at(raw(9, window.context), 0, window.context), raw(8, window.context))
    cache = write_context(cache, context)
    for chunk in range(3):
        first = window.context + chunk * window.chunk
        key = at(raw(chunk, window.chunk), first, window.chunk)
        cache = write_chunk(cache, kv(key, raw(10 + chunk, window.chunk)), chunk)

    turned = dequantise(turn_keys_back(cache, config=config).kv)
    start, step = window.context * TOKENS, window.chunk * TOKENS
    atol = 0.1 if in_int8 else 1e-5
    np.testing.assert_allclose(turned.key[:, :, :start], context.key, atol=atol)
    for chunk in range(2):
        slots = slice(start + chunk * step, start + (chunk + 1) * step)
        first = window.context + chunk * window.chunk
        expected = at(raw(chunk + 1, window.chunk), first, window.chunk)
        np.testing.assert_allclose(turned.key[:, :, slots], expected, atol=atol)
        np.testing.assert_allclose(
            turned.value[:, :, slots], raw(11 + chunk, window.chunk), atol=atol
        )
