"""Self-forcing: the generator rolls a shot out on its own past, and learns from it in two phases.

    rollout_no_grad         chunk after chunk: denoise, and commit clean keys and values
    recompute_exit_steps    with gradient: every chunk's exit step, against the finished cache

A rollout leaves the few steps at one exit step, the same for all chunks:

    noise[0] -> step 0 -> renoise with noise[1] -> step 1 = exit -> latents       (-> steps 2, 3)

The history, what later chunks see of a chunk, is its exit prediction or, as when filming, the
latents that all steps lead to. The cache holds exactly the shot, so nothing rolls.

Source: Self Forcing (arXiv 2506.08009), algorithm 1; public ShotStream repository,
pipeline/self_forcing_frameconcat_training.py.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.cache import ShotCache, Window, init_cache
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.models.dit import encode_captions
from shotstream_jax.pytree import pytree
from shotstream_jax.rollout.chunk import (
    ChunkLatents,
    ChunkNoise,
    Context,
    ShotLatents,
    ShotNoise,
    commit_chunk,
    join_chunks,
    predict_x0,
    prepare_shot,
    scan_chunks,
)
from shotstream_jax.rollout.conditioning import Conditioning
from shotstream_jax.schedule import add_noise
from shotstream_jax.train.objectives.reference_compat import ReferenceCompat
from shotstream_jax.typing import Array, Index, Key, Latents, Params

History = Literal["exit", "finished"]
"""What is committed of a chunk: its exit prediction, or what all steps lead to."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfForcing:
    """How the generator is rolled out for training.

    Attributes:
      rollout: chunks, context and few-step levels, as when filming.
      history: what later chunks see of a chunk, and later shots of the shot. "finished" is as when
        filming, at the price of the steps after the exit.
    """

    rollout: RolloutConfig = RolloutConfig()
    history: History = "exit"


@pytree
class RolloutNoise:
    """Random draws of one rollout.

    Attributes:
      noise: `noise[c, 0]` is where chunk c starts, `noise[c, i]` is mixed in before its step i.
      exit_step: step whose prediction is trained, for all chunks and samples.
    """

    noise: ShotNoise
    exit_step: Index


@pytree
class RolloutResult:
    """A shot that was rolled out.

    Attributes:
      latents: x0 predictions of the exit step: what is scored.
      history: latents that were committed: context of later shots.
      exit_inputs: noisy inputs of the exit step.
      cache: context, and clean keys of every chunk but the last.
    """

    latents: ShotLatents
    history: ShotLatents
    exit_inputs: ChunkLatents
    cache: ShotCache


def draw_rollout_noise(
    shared: Key[Array, ""],
    samples: Key[Array, " batch"],
    shape: tuple[int, ...],
    rollout: RolloutConfig,
) -> RolloutNoise:
    """Draw an exit step for all, evenly, and from each sample's own key the noise of every step.

    `shape` is that of one sample's latents, whole chunks of frames.

    Raises:
      ValueError: frames that are not whole chunks.
    """
    frames, chunk, steps = shape[0], rollout.window.chunk, len(rollout.steps)
    if frames % chunk:
        raise ValueError(f"A shot of {frames} latent frames is not whole chunks of {chunk}.")
    of_sample = (frames // chunk, steps, chunk, *shape[1:])
    draw = jax.vmap(lambda key: jax.random.normal(key, of_sample), out_axes=2)
    # One exit step for the whole batch: samples that left at different steps would all have to
    # wait for the last, and phase 2 would need a level of its own for each.
    return RolloutNoise(noise=draw(samples), exit_step=jax.random.randint(shared, (), 0, steps))


def rollout_no_grad(
    params: Params,
    config: DiTConfig,
    conditioning: Conditioning,
    draw: RolloutNoise,
    *,
    forcing: SelfForcing,
    compat: ReferenceCompat | None = None,
    compute: Compute = Compute(),
) -> RolloutResult:
    """Phase 1: roll a shot out, without gradient.

    Raises:
      ValueError: noise for another number of steps than the rollout has.
    """
    steps, exit_step = _count_steps(draw, forcing.rollout), draw.exit_step
    # Reverse mode would refuse the loops below: their end is traced.
    params, conditioning = jax.lax.stop_gradient((params, conditioning))
    shot, sigmas = conditioning.shot, jnp.asarray(forcing.rollout.sigmas)

    def denoise(
        cache: ShotCache, chunk: Index, noise: ChunkNoise
    ) -> tuple[Latents, tuple[Latents, Latents]]:
        def step_input(step: Index, x0: Latents) -> Latents:
            # The first step starts from pure noise: there is no prediction before it.
            return jnp.where(step == 0, noise[0], add_noise(x0, noise[step], sigmas[step]))

        def predict(step: Index, x_t: Latents) -> Latents:
            return predict_x0(params, config, cache, chunk, shot, x_t, sigmas[step], compute)[0]

        def take_step(step: Index, x0: Latents) -> Latents:
            return predict(step, step_input(step, x0))

        # A loop with a traced end, not a scan: one program serves all exits, and steps after the
        # exit are not computed.
        x0 = jax.lax.fori_loop(0, exit_step, take_step, jnp.zeros_like(noise[0]))
        exit_input = step_input(exit_step, x0)
        # Outside the loop: phase 2 needs this step's input, which the loop would have to carry.
        history = exit_x0 = predict(exit_step, exit_input)
        if forcing.history == "finished":
            history = jax.lax.fori_loop(exit_step + 1, steps, take_step, exit_x0)
        return history, (exit_x0, exit_input)

    def commit(cache: ShotCache, chunk: Index, latents: Latents) -> ShotCache:
        if compat is not None:
            latents = compat.clean_pass_input(chunk, latents, forcing.rollout)
        return commit_chunk(params, config, cache, chunk, shot, latents, compute=compute)

    cache = _prepared_cache(params, config, conditioning, draw.noise, forcing.rollout, compute)
    cache, (history, (latents, exit_inputs)) = scan_chunks(denoise, commit, cache, 0, draw.noise)
    return RolloutResult(
        latents=join_chunks(latents),
        history=join_chunks(history),
        exit_inputs=exit_inputs,
        cache=cache,
    )


def recompute_exit_steps(
    params: Params,
    config: DiTConfig,
    conditioning: Conditioning,
    result: RolloutResult,
    exit_step: Index,
    *,
    forcing: SelfForcing,
    compat: ReferenceCompat | None = None,
    compute: Compute = Compute(),
) -> ShotLatents:
    """Phase 2: the exit-step x0 predictions, with gradients to `params`.

    The gradient passes through the cross-attention keys of the caption too; self-attention's cache
    is a constant.
    """
    # The only keys that are made again: those of the context and of earlier chunks stay constant,
    # as backpropagation through time is cut at the chunk.
    text = encode_captions(params, config, conditioning.own_text, compute)
    cache = dataclasses.replace(result.cache, text=text)
    sigma = jnp.asarray(forcing.rollout.sigmas)[exit_step]

    def predict(cache: ShotCache, turn: tuple[Array, Array]) -> tuple[ShotCache, Latents]:
        chunk, exit_input = turn
        latents, kv = predict_x0(
            params, config, cache, chunk, conditioning.shot, exit_input, sigma, compute
        )
        return cache if compat is None else compat.graft_keys(cache, kv, chunk), latents

    turns = jnp.arange(result.exit_inputs.shape[0]), result.exit_inputs
    if compat is None:
        # Chunks do not depend on one another. `map` and not `vmap`: with rematerialisation, the
        # intermediates of one chunk at a time are then in memory.
        return join_chunks(jax.lax.map(lambda turn: predict(cache, turn)[1], turns))
    return join_chunks(jax.lax.scan(predict, cache, turns)[1])


def _count_steps(draw: RolloutNoise, rollout: RolloutConfig) -> int:
    steps = len(rollout.steps)
    if draw.noise.shape[1] != steps:
        raise ValueError(
            f"Noise for {draw.noise.shape[1]} steps a chunk, and the rollout has {steps}; "
            "draw it with `draw_rollout_noise`."
        )
    return steps


def _prepared_cache(
    params: Params,
    config: DiTConfig,
    conditioning: Conditioning,
    noise: ShotNoise,
    rollout: RolloutConfig,
    compute: Compute,
) -> ShotCache:
    """A cache that fits the shot, with its context written."""
    chunks, rows, cols = noise.shape[0], *noise.shape[4:6]
    # As long as the shot, so that no slot is ever evicted and phase 2 finds every chunk's keys.
    window = Window(
        chunk=rollout.window.chunk,
        context=conditioning.context.shape[1],
        local=chunks * rollout.window.chunk,
    )
    frame_tokens = rows * cols // (config.patch[0] * config.patch[1])
    captions = encode_captions(params, config, conditioning.text, compute)
    text = jax.tree.map(lambda keys: keys[:, :, -1:], captions)
    cache = init_cache(config, window, text, frame_tokens, compute.dtype)
    context = Context(
        latents=conditioning.context,
        shots=conditioning.context_shots,
        # One caption a slot; or the single one that all frames read.
        text=jax.tree.map(lambda keys: keys[:, :, : window.context], captions),
    )
    return prepare_shot(params, config, cache, context, text, compute=compute)
