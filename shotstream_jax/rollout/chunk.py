"""One chunk: its noise, a few denoising steps against the cache, a clean pass that commits it.

All functions are pure. `prepare_shot` fills a cache for a new shot, `denoise_chunk` reads it,
`commit_chunk` returns it with the chunk's clean keys and values written (donate it). `scan_chunks`
is the loop over the chunks of a shot that whole takes and self-forcing share.

Positions: context frames are numbered 0 .. context - 1, chunk `c` follows at context + c * chunk.
A chunk's number decides its positions and its slot in the cache. With T trained chunks, chunk `n`
of a take is filmed as

    running   n
    rebased   min(n, T - 1), after the T - 1 chunks before it were committed again as 0 .. T - 2
    turned    min(n, T - 1), after the keys of all held chunks were turned back by one chunk

Running positions leave the trained range after T chunks: the miniature's picture falls apart at
chunk 14 of a take whose model was trained on 2.

Source: the paper's causal student; public ShotStream repository, pipeline/causal_inference_ar.py.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from einops import rearrange

from shotstream_jax.model_config import ModelConfig, RolloutConfig
from shotstream_jax.models.cache import (
    KeyValue,
    ShotCache,
    TextKeys,
    chunk_slot,
    write_chunk,
    write_context,
)
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.models.dit import (
    ChunkInput,
    DiTOutput,
    apply_cached,
    keys_cached,
    keys_dense,
)
from shotstream_jax.models.quantise import dequantise
from shotstream_jax.models.rope import Rotation, grid_positions, rotate_keys_in_time, rotation
from shotstream_jax.pytree import pytree
from shotstream_jax.schedule import TRAIN_STEPS, add_noise, velocity_to_x0
from shotstream_jax.story import Positions, ShotPlan
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
    # Context frames see one another and nothing of the shot, so their keys are the same for every
    # chunk and are computed once a cut.
    kv = keys_dense(
        params,
        config,
        context.latents,
        # Context frames are clean, and the student, modulated frame by frame, was trained with
        # their timestep at 0. The teacher has one timestep for context and target alike.
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
    # Later chunks must see keys of what is shown, not of a noisy step. Timestep 0 with no noise
    # mixed in is what the public inference does (context_noise 0); its trainer mixes in level
    # 0.0079 here, the nearest in a table that has no 0.
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
    # Counted from behind the context, an empty one too, and anew in every shot: a released shot
    # stands at 6 to 26, the only numbers that training has shown.
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
    # For the released list 1, 0.958, 0.889 and 0.738: the shift of 8 moves all steps towards noise.
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
        # Not rounded to whole timesteps: the public inference passes 957.93, 888.89 and 737.59.
        inputs = chunk_input(config, cache, chunk, shot, x_t, level[0] * TRAIN_STEPS)
        output = apply_cached(params, config, cache, inputs, compute=compute)
        return after_step(x_t, output, level), None

    # The cache is read and not carried: keys of noisy latents are dropped, and what the loop does
    # not write needs no second copy (7.8 GB of a 1.3B's cache at 480 x 832).
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
    # No Euler step: distillation taught the network to jump to x0 from each of the few levels, and
    # to go on from that x0 with fresh noise.
    return add_noise(velocity_to_x0(x_t, output.velocity, sigma), next_noise, next_sigma)


def _rope(config: DiTConfig, latents: Latents, frames: Array, shots: Array) -> Rotation:
    rows, cols = (
        size // patch for size, patch in zip(latents.shape[2:4], config.patch, strict=True)
    )
    return rotation(grid_positions(frames, shots, rows, cols), config.head_dim, config.shot_phase)


def slot_captions(plan: ShotPlan, budget: int) -> tuple[str, ...]:
    """The caption that each context slot reads, then the shot's own (read by empty slots too)."""
    # Training drops the context to zeros that read the target's caption (`apply_dropout`), so a
    # first shot is filmed with the same.
    slots = [frame.caption for frame in plan.context] or [plan.caption] * budget
    return (*slots, plan.caption)


def chunk_number(config: ModelConfig, positions: Positions, chunk: int) -> int:
    """The number that chunk `chunk` of a take is filmed as, both counted from the cut."""
    if positions == "running":
        return chunk
    # The last trained number is the one at which training has seen the longest past.
    return min(chunk, config.rollout.shot_chunks - 1)


def check_positions(config: ModelConfig, positions: Positions, last: int) -> None:
    """Refuse a take whose chunks, the last being number `last`, have no positions.

    Raises:
      ValueError: positions run out, or the cache cannot hold what a policy needs.
    """
    rollout, window = config.rollout, config.rollout.window
    if positions == "running":
        if last >= rollout.max_chunks:
            raise ValueError(
                f"A take would end {last + 1} chunks after its cut, and running positions reach "
                f"{rollout.max_chunks}; cut sooner, or use positions that are re-based or turned."
            )
        return
    # Both policies put newer chunks into the slots from 0 on, where a sink would have to stay, and
    # need all chunks of the trained length, some of which a smaller window has evicted.
    if window.sink or rollout.shot_chunks > window.local // window.chunk:
        raise ValueError(
            f"Positions that are {positions} need a local window without a sink that holds the "
            f"{rollout.shot_chunks} trained chunks; this one holds "
            f"{window.local // window.chunk} and a sink of {window.sink} frames. Use running ones."
        )


def turn_keys_back(cache: ShotCache, *, config: DiTConfig) -> ShotCache:
    """A full local cache moved one chunk into the past: the oldest chunk leaves, others move down.

    Keys are stored rotated, and rotations add up: turning a key by minus one chunk of frames gives
    the key that its token would have at the lower number. Values carry no position.
    """
    chunk = cache.window.chunk * cache.frame_tokens
    # A turned key needs a scale of its own: 8 bits are widened here, rounded again when written.
    held = dequantise(cache.local)
    keys = rotate_keys_in_time(held.key[:, :, chunk:], -cache.window.chunk, config.head_dim)
    # From chunk 0 on; the last chunk's slots keep old values until the next chunk is written there.
    return write_chunk(cache, KeyValue(key=keys, value=held.value[:, :, chunk:]), 0)


def chunk_noise(
    seed: int, shot: int, take: int, chunk: int, *, steps: int, shape: tuple[int, ...]
) -> ChunkNoise:
    """Noise of one chunk, keyed by content: what else was filmed, and when, plays no part.

    `shape` is that of the chunk's latents.
    """
    key = jax.random.key(seed)
    # From the widest to the narrowest, so that another take or one more chunk leaves all other
    # noise as it is. Folding does not commute: any other order films every recorded seed
    # differently.
    for number in (shot, take, chunk):
        key = jax.random.fold_in(key, number)
    return _draw(key, steps, shape)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw(key: Key[Array, ""], steps: int, shape: tuple[int, ...]) -> ChunkNoise:
    # A key for each step, not one draw for all: models of 4 steps and of 1 start from the same
    # noise.
    keys = jax.vmap(lambda step: jax.random.fold_in(key, step))(jnp.arange(steps))
    # In float32 whatever the network computes in: films in every format start from this noise.
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
