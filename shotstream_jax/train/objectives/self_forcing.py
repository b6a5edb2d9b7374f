"""Self-forcing: the generator films a shot on its own past, and learns from it in two phases.

    film      without gradient: chunk after chunk, denoise and commit clean keys
    retake    with gradient: the exit step of every chunk once more, against the finished cache

A rollout leaves the few steps at one exit step, the same for all chunks:

    noise[0] -> step 0 -> renoise with noise[1] -> step 1 = exit -> latents       (-> steps 2, 3)

Later chunks see a chunk by the keys of its exit prediction or, as they will when filming for real,
of the finished latents. The cache holds exactly the shot, so nothing rolls.

Source: Self Forcing (arXiv 2506.08009), algorithm 1; public ShotStream repository,
pipeline/self_forcing_frameconcat_training.py.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from einops import rearrange

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.cache import (
    KeyValue,
    ShotCache,
    Window,
    chunk_slot,
    init_cache,
    write_chunk,
)
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.models.dit import apply_cached, encode_captions
from shotstream_jax.pytree import pytree
from shotstream_jax.rollout.chunk import (
    Context,
    chunk_input,
    commit_chunk,
    prepare_shot,
)
from shotstream_jax.rollout.conditioning import Conditioning
from shotstream_jax.schedule import TRAIN_STEPS, FlowSchedule, add_noise, velocity_to_x0
from shotstream_jax.typing import Array, Float, Index, Int, Key, Latents, Params

ChunkLatents = Float[Array, "chunk batch frame row col chan"]
ShotLatents = Float[Array, "batch shot_frame row col chan"]
StepNoise = Float[Array, "step batch frame row col chan"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfForcing:
    """How the generator is rolled out for training.

    Attributes:
      rollout: chunks, context and few-step levels, as when filming.
      commits: what later chunks see of a chunk, and later shots remember: its exit prediction, or
        the latents that all steps lead to (as when filming, and at the price of those steps).
      cache_gradient: `detached` takes the past as a constant. `straight_through` sends the gradient
        of clean keys to those of the exit step, as the public implementation happens to do.
    """

    rollout: RolloutConfig = RolloutConfig()
    commits: Literal["exit", "finished"] = "exit"
    cache_gradient: Literal["detached", "straight_through"] = "detached"


@pytree
class RolloutDraw:
    """The chance in one rollout.

    Attributes:
      noise: `noise[c, 0]` is where chunk c starts, `noise[c, i]` is mixed in before its step i.
      exit_step: step whose prediction is trained, for all chunks and samples.
      refresh: noise at the lowest training level for the clean pass of every chunk, as the public
        trainer has it; none when filming.
    """

    noise: Float[Array, "chunk step batch frame row col chan"]
    exit_step: Index
    refresh: ChunkLatents | None = None


@pytree
class Take:
    """One rendering of a shot.

    Attributes:
      latents: exit predictions: what is scored.
      history: latents that were committed: what later shots may remember.
      exit_inputs: noisy inputs of the exit step.
      cache: context, and clean keys of every chunk but the last.
    """

    latents: ShotLatents
    history: ShotLatents
    exit_inputs: ChunkLatents
    cache: ShotCache


def draw_rollout(
    shared: Key[Array, ""],
    samples: Key[Array, " batch"],
    shape: tuple[int, ...],
    rollout: RolloutConfig,
) -> RolloutDraw:
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
    return RolloutDraw(noise=draw(samples), exit_step=jax.random.randint(shared, (), 0, steps))


def film(
    params: Params,
    config: DiTConfig,
    conditioning: Conditioning,
    draw: RolloutDraw,
    *,
    forcing: SelfForcing,
    compute: Compute = Compute(),
) -> Take:
    """Roll a shot out; no gradient passes.

    Raises:
      ValueError: noise for another number of steps than the rollout has.
    """
    steps = len(forcing.rollout.steps)
    if draw.noise.shape[1] != steps:
        raise ValueError(
            f"Noise for {draw.noise.shape[1]} steps a chunk, and the rollout has {steps}; "
            "draw it with `draw_rollout`."
        )
    params, conditioning = jax.lax.stop_gradient((params, conditioning))
    passes = _Passes(params, config, conditioning.shot, forcing.rollout, compute)
    last = draw.noise.shape[0] - 1

    def film_chunk(cache: ShotCache, turn: tuple) -> tuple[ShotCache, tuple]:
        chunk, noise, refresh = turn
        step = functools.partial(passes.step, cache, chunk, noise)
        x0 = jax.lax.fori_loop(0, draw.exit_step, step, jnp.zeros_like(noise[0]))
        exit_input = passes.renoise(noise, draw.exit_step, x0)
        history = latents = passes.predict(cache, chunk, exit_input, draw.exit_step)[0]
        if forcing.commits == "finished":
            history = jax.lax.fori_loop(draw.exit_step + 1, steps, step, latents)
        commit = functools.partial(passes.commit, chunk=chunk, latents=history, refresh=refresh)
        # No later chunk reads the last one's keys.
        cache = jax.lax.cond(chunk < last, commit, lambda cache: cache, cache)
        return cache, (latents, history, exit_input)

    cache = _prepared_cache(params, config, conditioning, draw.noise, forcing.rollout, compute)
    turns = (jnp.arange(last + 1), draw.noise, draw.refresh)
    cache, (latents, history, exit_inputs) = jax.lax.scan(film_chunk, cache, turns)
    return Take(
        latents=_join(latents), history=_join(history), exit_inputs=exit_inputs, cache=cache
    )


def retake(
    params: Params,
    config: DiTConfig,
    conditioning: Conditioning,
    take: Take,
    exit_step: Index,
    *,
    forcing: SelfForcing,
    compute: Compute = Compute(),
) -> ShotLatents:
    """The exit predictions of a take, now under a gradient, that of the caption's keys included."""
    passes = _Passes(params, config, conditioning.shot, forcing.rollout, compute)
    text = encode_captions(params, config, conditioning.own_text, compute)
    cache = dataclasses.replace(take.cache, text=text)

    def look_again(cache: ShotCache, turn: tuple[Array, Array]) -> tuple[ShotCache, Latents]:
        chunk, exit_input = turn
        latents, kv = passes.predict(cache, chunk, exit_input, exit_step)
        return _straight_through(cache, kv, chunk), latents

    turns = jnp.arange(take.exit_inputs.shape[0]), take.exit_inputs
    if forcing.cache_gradient == "straight_through":
        return _join(jax.lax.scan(look_again, cache, turns)[1])
    return _join(jax.lax.map(lambda turn: look_again(cache, turn)[1], turns))


class _Passes:
    """What the network is asked about a chunk, the clean pass included."""

    def __init__(
        self,
        params: Params,
        config: DiTConfig,
        shot: Int[Array, " batch"],
        rollout: RolloutConfig,
        compute: Compute,
    ):
        self.params, self.config = params, config
        self.shot, self.rollout, self.compute = shot, rollout, compute
        self.sigmas = jnp.asarray(rollout.sigmas)

    def step(
        self, cache: ShotCache, chunk: Index, noise: StepNoise, step: Index, x0: Latents
    ) -> Latents:
        """Clean latents that a step predicts, from what the step before predicted."""
        return self.predict(cache, chunk, self.renoise(noise, step, x0), step)[0]

    def renoise(self, noise: StepNoise, step: Index, x0: Latents) -> Latents:
        """The input of a step; the first needs no prediction before it."""
        return jnp.where(step == 0, noise[0], add_noise(x0, noise[step], self.sigmas[step]))

    def predict(
        self, cache: ShotCache, chunk: Index, x_t: Latents, step: Index
    ) -> tuple[Latents, KeyValue]:
        """Clean latents that a step predicts from its input, and the keys and values it made."""
        sigma = self.sigmas[step]
        inputs = chunk_input(self.config, cache, chunk, self.shot, x_t, sigma * TRAIN_STEPS)
        output = apply_cached(self.params, self.config, cache, inputs, compute=self.compute)
        return velocity_to_x0(x_t, output.velocity, sigma), output.kv

    def commit(
        self, cache: ShotCache, chunk: Index, latents: Latents, refresh: Latents | None
    ) -> ShotCache:
        """The clean pass of a chunk, into the cache."""
        if refresh is not None:
            lowest = FlowSchedule(shift=self.rollout.shift).sigmas[-1]
            latents = add_noise(latents, refresh, jnp.asarray(lowest))
        how = {"compute": self.compute}
        return commit_chunk(self.params, self.config, cache, chunk, self.shot, latents, **how)


def _prepared_cache(
    params: Params,
    config: DiTConfig,
    conditioning: Conditioning,
    noise: Float[Array, "chunk step batch frame row col chan"],
    rollout: RolloutConfig,
    compute: Compute,
) -> ShotCache:
    """A cache that fits the shot, with its context written."""
    chunks, rows, cols = noise.shape[0], *noise.shape[4:6]
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


def _straight_through(cache: ShotCache, kv: KeyValue, chunk: Index) -> ShotCache:
    """Leave a chunk's clean keys as they are, and give them the gradient of those of a noisy pass.

    clean + (noisy - stop_gradient(noisy)), the public implementation's accident of reading a cache
    whose values were overwritten out of the gradient's sight.
    """
    start = chunk_slot(cache.window, cache.frame_tokens, chunk).start

    def graft(written: Array, noisy: Array) -> Array:
        clean = jax.lax.dynamic_slice_in_dim(written, start, noisy.shape[2], axis=2)
        return clean + (noisy - jax.lax.stop_gradient(noisy)).astype(clean.dtype)

    return write_chunk(cache, jax.tree.map(graft, cache.kv, kv), chunk)


def _join(chunks: ChunkLatents) -> ShotLatents:
    return rearrange(chunks, "chunk batch frame ... -> batch (chunk frame) ...")
