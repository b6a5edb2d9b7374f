"""Arrays in 8 bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from shotstream_jax.models.cache import KeyValue, Window, init_cache, write_chunk
from shotstream_jax.models.dit import apply_dense
from shotstream_jax.models.quantise import Quantised, dequantise, quantise, quantise_blocks
from shotstream_jax.sharding import make_mesh, shardings_for


@pytest.mark.parametrize("axis", [-1, -2])
def test_no_number_is_off_by_more_than_half_the_scale(axis):
    x = jax.random.normal(jax.random.key(0), (3, 5, 7)) * 10.0 ** jnp.arange(7)
    held = quantise(x, axis)
    assert held.int8.dtype == jnp.int8
    assert held.scale.shape == np.max(x, axis, keepdims=True).shape
    error = np.abs(dequantise(held) - x)
    assert np.all(error <= 0.5001 * np.asarray(held.scale))
    # The largest of a row is one of the numbers that 8 bits hold exactly.
    assert np.all(np.abs(held.int8).max(axis) == 127)


def test_zeros_stay_zeros():
    assert not np.any(dequantise(quantise(jnp.zeros((2, 3)))))


def test_only_kernels_of_blocks_are_held_in_8_bits(example):
    held = quantise_blocks(example.params)
    kernels = [
        leaf
        for leaf in jax.tree.leaves(held, is_leaf=lambda x: isinstance(x, Quantised))
        if isinstance(leaf, Quantised)
    ]
    # Eight projections of two attentions, and two layers of the feed-forward.
    assert len(kernels) == 10
    for kernel in kernels:
        layers, _, outputs = kernel.int8.shape
        assert layers == example.config.layers
        # One scale an output: it leaves the sum over inputs, and is split as outputs are.
        assert kernel.scale.shape == (layers, 1, outputs)
    assert jax.tree.structure(dequantise(held)) == jax.tree.structure(example.params)


def test_a_transformer_in_8_bits_says_nearly_the_same(example):
    frames = jnp.arange(3)
    inputs = example.latents[:, :3], example.timesteps[:, :3] + 500.0, example.rope(frames)
    text = jax.tree.map(lambda x: x[:, :, :1], example.text)
    exact = apply_dense(example.params, example.config, *inputs, text).velocity
    held = quantise_blocks(example.params)
    found = apply_dense(held, example.config, *inputs, text).velocity
    error = jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)
    assert 0 < error < 0.02


def test_a_cache_in_8_bits_holds_what_was_written(example):
    window = Window(chunk=2, context=3, local=6)
    text = jax.tree.map(lambda x: x[:, :, :1], example.text)
    cache = init_cache(example.config, window, text, 6, in_int8=True)
    shape = (example.config.layers, 1, 12, example.config.heads, example.config.head_dim)
    new = jax.random.normal(jax.random.key(1), shape)
    written = write_chunk(cache, KeyValue(key=new, value=2 * new), 1)
    start = (window.context + window.chunk) * 6
    key = dequantise(written.kv.key)
    np.testing.assert_allclose(key[:, :, start : start + 12], new, atol=0.02)
    assert not np.any(key[:, :, :start])
    assert written.kv.value.int8.dtype == jnp.int8


def test_both_parts_lie_as_the_kernel_would():
    shapes = {"ffn": {"up": {"kernel": jnp.zeros((2, 4, 8))}}}
    held = {"ffn": {"up": {"kernel": quantise(shapes["ffn"]["up"]["kernel"], -2)}}}
    mesh = make_mesh(jax.devices()[:1])
    whole = shardings_for(shapes, mesh)["ffn"]["up"]["kernel"].spec
    parts = shardings_for(held, mesh)["ffn"]["up"]["kernel"]
    assert parts.int8.spec == whole == PartitionSpec(None, "fsdp", "tensor")
    assert parts.scale.spec == whole
