"""Merged passes: what fills the cache shares a pass with the first step of the chunk that follows.

`context_pass_and_denoise` and `clean_pass_and_denoise` return the latents and the cache that two
calls of `chunk.py` would; the weights are read once where those read them twice. A shot of 7
chunks, whose last is not committed, takes 28 passes in place of 35: one a step, and none for the
context.
"""

import dataclasses

import jax
import jax.numpy as jnp

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.cache import (
    CacheSlot,
    Prefix,
    ShotCache,
    TextKeys,
    write_chunk,
    write_context,
)
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.models.dit import ChunkInput, DiTOutput, apply_merged
from shotstream_jax.rollout.chunk import (
    Context,
    ShotNumber,
    after_step,
    chunk_input,
    context_numbers,
    context_rope,
    denoise_from,
    levels_of,
)
from shotstream_jax.schedule import TRAIN_STEPS
from shotstream_jax.typing import Array, Float, Index, Latents, Params


def context_pass_and_denoise(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    context: Context,
    text: TextKeys,
    shot: ShotNumber,
    noise: Float[Array, "step batch frame row col chan"],
    *,
    rollout: RolloutConfig,
    compute: Compute = Compute(),
) -> tuple[Latents, ShotCache]:
    """`prepare_shot`, then `denoise_chunk` of chunk 0; the context shares a pass with a step."""
    # Context tokens see the context slots alone, as in a pass of their own, and at timestep 0,
    # since they are clean; the chunk in the same pass stands at the first step's timestep.
    earlier = ChunkInput(
        latents=context.latents,
        timesteps=jnp.zeros((context.shots.shape[0], 1)),
        rope=context_rope(config, context),
        slot=CacheSlot(start=0, visible=Prefix.known(cache.window.context * cache.frame_tokens)),
    )
    numbers = context_numbers(context)
    # The shot's caption comes after those of the context slots.
    own = jnp.full(noise.shape[1:3], numbers.shape[1])
    output = apply_merged(
        params,
        config,
        cache,
        earlier,
        chunk_input(config, cache, 0, shot, noise[0], _first_timestep(rollout)),
        jax.tree.map(lambda *kv: jnp.concatenate(kv, axis=2), context.text, text),
        caption_index=jnp.concatenate([numbers, own], axis=1),
        compute=compute,
    )
    # In each layer the chunk has seen the context's new keys already; the steps that follow find
    # them here.
    cache = dataclasses.replace(write_context(cache, output.kv), text=text)
    latents = _next_steps(params, config, cache, 0, shot, output, noise, rollout, compute)
    return latents, cache


def clean_pass_and_denoise(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    chunk: Index,
    shot: ShotNumber,
    finished: Latents,
    noise: Float[Array, "step batch frame row col chan"],
    *,
    rollout: RolloutConfig,
    compute: Compute = Compute(),
) -> tuple[Latents, ShotCache]:
    """`commit_chunk` of the chunk before, then `denoise_chunk`; the clean pass shares a step's."""
    before = chunk - 1
    # A first step starts from noise alone, which nothing filmed before decides, so it need not wait
    # for the clean pass: layer by layer it reads the clean keys that the same pass has just made.
    earlier = chunk_input(config, cache, before, shot, finished, 0.0)
    newest = chunk_input(config, cache, chunk, shot, noise[0], _first_timestep(rollout))
    output = apply_merged(params, config, cache, earlier, newest, cache.text, compute=compute)
    cache = write_chunk(cache, output.kv, before)
    latents = _next_steps(params, config, cache, chunk, shot, output, noise, rollout, compute)
    return latents, cache


def _first_timestep(rollout: RolloutConfig) -> float:
    return float(rollout.sigmas[0]) * TRAIN_STEPS


def _next_steps(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    chunk: Index,
    shot: ShotNumber,
    output: DiTOutput,
    noise: Array,
    rollout: RolloutConfig,
    compute: Compute,
) -> Latents:
    """All steps of a chunk after the one that has the output."""
    levels = levels_of(rollout, noise)
    x_t = after_step(noise[0], output, jax.tree.map(lambda x: x[0], levels))
    left = jax.tree.map(lambda x: x[1:], levels)
    return denoise_from(params, config, cache, chunk, shot, x_t, left, compute)
