"""One chunk: its noise, a few denoising steps against the cache, a clean pass that commits it.

All functions are pure. `prepare_shot` fills a cache for a new shot, `denoise_chunk` reads it,
`commit_chunk` returns it with the chunk's clean keys and values written (donate it). `scan_chunks`
is the loop over the chunks of a shot that whole takes and self-forcing share.

Positions: context frames are numbered 0 .. context - 1, chunk `c` follows at context + c * chunk.

Source: the paper's causal student; public ShotStream repository, pipeline/causal_inference_ar.py.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from einops import rearrange

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.cache import (
    KeyValue,
    ShotCache,
    TextKeys,
    chunk_slot,
    write_chunk,
    write_context,
)
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.dit import (
    ChunkInput,
    DiTOutput,
    apply_cached,
    keys_cached,
    keys_dense,
)
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.rope import Rotation, grid_positions, rotation
from shotstream_jax.pytree import pytree
from shotstream_jax.schedule import TRAIN_STEPS, add_noise, velocity_to_x0
from shotstream_jax.typing import Array, Float, Index, Int, Key, Latents, Params

ShotNumber = Int[Array, " #batch"] | Index
"""The number that the rotation gives to a shot: one for all samples, or one each."""

Rest = TypeVar("Rest")

ChunkNoise = Float[Array, "step batch frame row col chan"]
"""Gaussian noise of every denoising step of a chunk; the first is where the chunk starts."""

ShotNoise = Float[Array, "chunk step batch frame row col chan"]
"""The noise of every chunk of a shot."""

ChunkLatents = Float[Array, "chunk batch frame row col chan"]
ShotLatents = Float[Array, "batch shot_frame row col chan"]

Levels = tuple[Array, Array, Array]
"""Of each step: its noise level, that of the step after it, and the noise mixed in between."""


@pytree
class Context:
    """What a new shot is told of earlier ones.

    Attributes:
      latents: one latent frame for each remembered video frame; zeros before the first shot.
      shots: the shot that each was taken from, as the rotation counts shots.
      text: keys and values of each frame's own caption, one caption a frame.
    """

    latents: Latents
    shots: Int[Array, "batch frame"]
    text: TextKeys


def prepare_shot(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    context: Context,
    text: TextKeys,
    *,
    compute: Compute = Compute(),
) -> ShotCache:
    """The context pass: overwrite the cache's context, and set the caption to film to.

    Local slots keep their old values: nothing reads them before a chunk of this shot is there.
    """
    frames = context.latents.shape[1]
    if frames != cache.window.context:
        # More would overwrite the shot's own slots, fewer leave keys of the shot before.
        raise ValueError(f"{frames} context frames for a cache of {cache.window.context} slots.")
    kv = keys_dense(
        params,
        config,
        context.latents,
        jnp.zeros((context.shots.shape[0], 1)),
        context_rope(config, context),
        context.text,
        caption_index=context_numbers(context),
        compute=compute,
    )
    return dataclasses.replace(write_context(cache, kv), text=text)


def denoise_chunk(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    chunk: Index,
    shot: ShotNumber,
    noise: Float[Array, "step batch frame row col chan"],
    *,
    rollout: RolloutConfig,
    compute: Compute = Compute(),
) -> Latents:
    """Film chunk number `chunk`: from pure noise, renoised between the few steps.

    `noise[0]` is where it starts, `noise[i]` what is mixed in before step `i`. `shot` is the
    number that the rotation gives to the shot.
    """
    return denoise_from(
        params, config, cache, chunk, shot, noise[0], levels_of(rollout, noise), compute
    )


def commit_chunk(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    chunk: Index,
    shot: ShotNumber,
    latents: Latents,
    *,
    compute: Compute = Compute(),
) -> ShotCache:
    """The clean pass: keys and values of finished latents, at timestep 0, into the cache."""
    kv = clean_keys(params, config, cache, chunk, shot, latents, compute=compute)
    return write_chunk(cache, kv, chunk)


def clean_keys(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    chunk: Index,
    shot: ShotNumber,
    latents: Latents,
    *,
    compute: Compute = Compute(),
) -> KeyValue:
    """Keys and values of a finished chunk, as the clean pass finds them."""
    clean = chunk_input(config, cache, chunk, shot, latents, 0.0)
    return keys_cached(params, config, cache, clean, compute=compute)


def chunk_input(
    config: DiTConfig,
    cache: ShotCache,
    chunk: Index,
    shot: ShotNumber,
    latents: Latents,
    timestep: Float[Array, ""] | float,
) -> ChunkInput:
    """Latents of chunk number `chunk`, at one timestep, in their slot of the cache."""
    return ChunkInput(
        latents=latents,
        timesteps=jnp.full((latents.shape[0], 1), timestep),
        rope=chunk_rope(config, cache, latents, chunk, shot),
        slot=chunk_slot(cache.window, cache.frame_tokens, chunk),
    )


def chunk_rope(
    config: DiTConfig, cache: ShotCache, latents: Latents, chunk: Index, shot: ShotNumber
) -> Rotation:
    """Rotation of a chunk's tokens: its frames stand after the context and earlier chunks."""
    batch, frames = latents.shape[:2]
    window = cache.window
    numbers = window.context + jnp.asarray(chunk) * window.chunk + jnp.arange(frames)
    numbers = jnp.broadcast_to(numbers, (batch, frames))
    shots = jnp.broadcast_to(jnp.reshape(jnp.asarray(shot), (-1, 1)), (batch, frames))
    return _rope(config, latents, numbers, shots)


def context_rope(config: DiTConfig, context: Context) -> Rotation:
    """Rotation of the context's tokens: its frames stand first, each in the shot it is from."""
    return _rope(config, context.latents, context_numbers(context), context.shots)


def context_numbers(context: Context) -> Int[Array, "batch frame"]:
    """The numbers of the context's frames, which come before any chunk's."""
    batch, frames = context.shots.shape
    return jnp.broadcast_to(jnp.arange(frames), (batch, frames))


def levels_of(rollout: RolloutConfig, noise: Array) -> Levels:
    """The levels of a chunk's steps."""
    sigmas = jnp.asarray(rollout.sigmas)
    # The last step mixes no noise in: level 0 of whatever stands there.
    return sigmas, jnp.append(sigmas[1:], 0.0), jnp.roll(noise, -1, axis=0)


def denoise_from(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    chunk: Index,
    shot: ShotNumber,
    x_t: Latents,
    levels: Levels,
    compute: Compute,
) -> Latents:
    """Steps of a chunk at the levels given, from the first one's input."""

    def step(x_t: Latents, level: Levels) -> tuple[Latents, None]:
        inputs = chunk_input(config, cache, chunk, shot, x_t, level[0] * TRAIN_STEPS)
        output = apply_cached(params, config, cache, inputs, compute=compute)
        return after_step(x_t, output, level), None

    x0, _ = jax.lax.scan(step, x_t, levels)
    return x0


def predict_x0(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    chunk: Index,
    shot: ShotNumber,
    x_t: Latents,
    sigma: Float[Array, ""],
    compute: Compute = Compute(),
) -> tuple[Latents, KeyValue]:
    """Clean latents that one step predicts, and the keys and values of its noisy input."""
    inputs = chunk_input(config, cache, chunk, shot, x_t, sigma * TRAIN_STEPS)
    output = apply_cached(params, config, cache, inputs, compute=compute)
    return velocity_to_x0(x_t, output.velocity, sigma), output.kv


def scan_chunks(
    denoise: Callable[[ShotCache, Index, ChunkNoise], tuple[Latents, Rest]],
    commit: Callable[[ShotCache, Index, Latents], ShotCache],
    cache: ShotCache,
    first: Index,
    noise: ShotNoise,
) -> tuple[ShotCache, tuple[ChunkLatents, Rest]]:
    """Denoise chunks `first`, `first` + 1, ... one after the other, committing all but the last.

    Args:
      denoise: latents of a chunk that are committed, and what else to stack over chunks.
      commit: the clean pass.
      cache: a prepared one.
      first: number of the first chunk since the cut.
      noise: of every chunk.

    Returns:
      The cache, and what `denoise` returned, stacked over chunks.
    """
    last = noise.shape[0] - 1

    def body(cache: ShotCache, turn: tuple[Array, Array]) -> tuple[ShotCache, tuple[Latents, Rest]]:
        number, noise = turn
        latents, rest = denoise(cache, first + number, noise)
        # Only a chunk after it would need the last one's keys. Skipped inside the loop, since a
        # last chunk outside it would be compiled a second time.
        cache = jax.lax.cond(
            number < last,
            lambda cache: commit(cache, first + number, latents),
            lambda cache: cache,
            cache,
        )
        return cache, (latents, rest)

    return jax.lax.scan(body, cache, (jnp.arange(last + 1), noise))


def join_chunks(chunks: ChunkLatents) -> ShotLatents:
    """Chunks one after the other, as the frames of one shot."""
    return rearrange(chunks, "chunk batch frame ... -> batch (chunk frame) ...")


def after_step(x_t: Latents, output: DiTOutput, level: Levels) -> Latents:
    """Where a step ends: its prediction of x0, renoised to the level of the next."""
    sigma, next_sigma, next_noise = level
    return add_noise(velocity_to_x0(x_t, output.velocity, sigma), next_noise, next_sigma)


def _rope(config: DiTConfig, latents: Latents, frames: Array, shots: Array) -> Rotation:
    rows, cols = (
        size // patch for size, patch in zip(latents.shape[2:4], config.patch, strict=True)
    )
    return rotation(grid_positions(frames, shots, rows, cols), config.head_dim, config.shot_phase)


def chunk_noise(
    seed: int, shot: int, take: int, chunk: int, *, steps: int, shape: tuple[int, ...]
) -> ChunkNoise:
    """Noise of one chunk, keyed by content: what else was filmed, and when, plays no part.

    `shape` is that of the chunk's latents.
    """
    key = jax.random.key(seed)
    for number in (shot, take, chunk):
        key = jax.random.fold_in(key, number)
    return _draw(key, steps, shape)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw(key: Key[Array, ""], steps: int, shape: tuple[int, ...]) -> ChunkNoise:
    keys = jax.vmap(lambda step: jax.random.fold_in(key, step))(jnp.arange(steps))
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
