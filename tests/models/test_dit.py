import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models import dit
from shotstream_jax.models.cache import (
    TextKeys,
    chunk_slot,
    init_cache,
    write_chunk,
    write_context,
)
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import WAN_1_3B, WAN_14B, DiTConfig

HOW = ("config", "compute")
apply_dense = jax.jit(dit.apply_dense, static_argnames=(*HOW, "levels"))
keys_dense = jax.jit(dit.keys_dense, static_argnames=HOW)
apply_cached = jax.jit(dit.apply_cached, static_argnames=HOW)
keys_cached = jax.jit(dit.keys_cached, static_argnames=HOW)


def dense(example, latents, timesteps=None):
    """All frames at once, context and chunks in levels."""
    window = example.window
    levels = [window.context] + [window.chunk] * (window.local // window.chunk)
    return apply_dense(
        example.params,
        example.config,
        latents,
        example.timesteps if timesteps is None else timesteps,
        example.rope(np.arange(latents.shape[1])),
        example.text,
        caption_index=example.shots,
        levels=tuple(levels),
    )


def caption(text: TextKeys, index: int) -> TextKeys:
    return jax.tree.map(lambda x: x[:, :, index : index + 1], text)


def cached(example):
    """The same frames, chunk by chunk against a cache."""
    window, sizes = example.window, (example.params, example.config)
    cache = init_cache(example.config, window, caption(example.text, 2), 6)
    cache = dataclasses.replace(cache, text=caption(example.text, 2))
    context = example.latents[:, : window.context]
    now = jnp.zeros((1, 1))
    frames = np.arange(window.context)
    index = example.shots[:, : window.context]
    kv = keys_dense(*sizes, context, now, example.rope(frames), example.text, caption_index=index)
    cache, velocities = write_context(cache, kv), []
    for chunk in range(window.local // window.chunk):
        frames = window.context + chunk * window.chunk + np.arange(window.chunk)
        inputs = dit.ChunkInput(
            latents=example.latents[:, frames],
            timesteps=now,
            rope=example.rope(frames),
            slot=chunk_slot(window, 6, chunk),
        )
        velocities.append(apply_cached(*sizes, cache, inputs).velocity)
        cache = write_chunk(cache, keys_cached(*sizes, cache, inputs), chunk)
    return jnp.concatenate(velocities, axis=1), cache


def test_cached_equals_dense_masked(example):
    whole = dense(example, example.latents)
    velocities, cache = cached(example)
    context = example.window.context
    np.testing.assert_allclose(velocities, whole.velocity[:, context:], atol=2e-5)
    np.testing.assert_allclose(cache.kv.key, whole.kv.key, atol=2e-5)
    np.testing.assert_allclose(cache.kv.value, whole.kv.value, atol=2e-5)


def test_chunks_are_causal_by_gradient(example):
    """What frame `i` is told depends on frame `j` exactly when `j` is in its chunk or earlier."""
    frames = example.latents.shape[1]

    def heard(latents):
        return jnp.square(dense(example, latents).velocity).sum(axis=(0, 2, 3, 4))

    reach = np.abs(np.asarray(jax.jacrev(heard)(example.latents))).sum(axis=(1, 3, 4, 5))
    level = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(reach > 0, level[:, None] >= level[None, :])
    assert reach.shape == (frames, frames)


def test_frames_read_their_own_caption_alone(example):
    def heard(text):
        swapped = dataclasses.replace(example, text=text)
        return jnp.square(dense(swapped, example.latents).velocity).sum(axis=(0, 2, 3, 4))

    # The last frame of the context is of shot 1; every later frame hears of it through attention.
    by_caption = jax.jacrev(heard)(example.text).value
    reach = np.abs(np.asarray(by_caption)).sum(axis=(1, 2, 4, 5, 6))
    assert (reach[:3, 2] == 0).all()
    assert (reach[:3, :2] > 0).all()
    assert (reach[3:] > 0).all()


def test_single_caption_ignores_the_index(example):
    single = dataclasses.replace(example, text=caption(example.text, 1))
    out_of_range = dataclasses.replace(single, shots=single.shots + 5)
    frames = np.arange(9)
    one, other = (
        apply_dense(
            e.params,
            e.config,
            e.latents,
            e.timesteps,
            single.rope(frames),
            e.text,
            caption_index=e.shots,
        ).velocity
        for e in (single, out_of_range)
    )
    np.testing.assert_array_equal(one, other)


def test_key_passes_propose_what_full_passes_propose(example):
    frames = np.arange(9)
    call = (example.params, example.config, example.latents, example.timesteps)
    rope = example.rope(frames)
    kv = keys_dense(*call, rope, example.text, caption_index=example.shots)
    full = apply_dense(*call, rope, example.text, caption_index=example.shots)
    np.testing.assert_array_equal(kv.key, full.kv.key)
    np.testing.assert_array_equal(kv.value, full.kv.value)


@pytest.mark.parametrize("layers", [1, 3])
def test_key_passes_stop_at_the_keys_of_the_last_layer(example, layers):
    """Nothing of the last layer beyond its keys is computed; no branch is chosen at run time."""

    def lowered(ffn_dim):
        config = dataclasses.replace(example.config, layers=layers, ffn_dim=ffn_dim)
        params = jax.eval_shape(lambda key: dit.init_dit(key, config), jax.random.key(0))
        text = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((layers, *x.shape[1:]), x.dtype), example.text
        )
        call = (example.latents, example.timesteps, example.rope(np.arange(9)), text)
        return keys_dense.lower(params, config, *call, caption_index=example.shots)

    def flops(ffn_dim):
        return lowered(ffn_dim).compile().cost_analysis()["flops"]

    assert "stablehlo.case" not in lowered(48).as_text()
    # Two products of 54 tokens; the compiler counts the body of a loop once, however often it runs.
    feed_forward = 2 * 2 * 54 * example.config.dim * 48
    assert flops(96) - flops(48) == pytest.approx(feed_forward * (layers > 1), rel=0.1)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_no_gradient(example, remat):
    def loss(params, remat):
        velocity = apply_dense(
            params,
            example.config,
            example.latents,
            example.timesteps,
            example.rope(np.arange(9)),
            example.text,
            caption_index=example.shots,
            compute=Compute(remat=remat),
        ).velocity
        return jnp.square(velocity).mean()

    plain, again = (jax.grad(loss)(example.params, r) for r in ("none", remat))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), plain, again)


def test_bfloat16_follows_float32(example):
    half = Compute(dtype=jnp.bfloat16)
    args = (example.params, example.config, example.latents, example.timesteps)
    full, rough = (
        apply_dense(
            *args,
            example.rope(np.arange(9)),
            example.text,
            caption_index=example.shots,
            compute=compute,
        ).velocity
        for compute in (Compute(), half)
    )
    error = jnp.linalg.norm(rough - full) / jnp.linalg.norm(full)
    assert rough.dtype == example.latents.dtype
    assert 1e-5 < error < 2e-2


@pytest.mark.parametrize(
    ("config", "count"), [(WAN_1_3B, 1_418_996_800), (WAN_14B, 14_288_491_584)]
)
def test_parameters_are_as_many_as_published(config, count):
    shapes = jax.eval_shape(lambda key: dit.init_dit(key, config), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"dim": 100, "heads": 12}, "dim 100 over 12 heads"),
        ({"dim": 36, "heads": 12}, "heads of 3"),
        ({"freq_dim": 7}, "freq_dim 7 must be even"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        DiTConfig(**sizes)
