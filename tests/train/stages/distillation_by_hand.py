"""Distribution matching by hand, sample by sample: a rollout, two scores, and what each learns.

The rollout keeps a cache of keys and values by the networks' own functions, and the gradient
passes through the last look at each chunk alone, with what that look sees as constants.
"""

import dataclasses

import jax
import jax.numpy as jnp

from shotstream_jax.models.cache import (
    ShotCache,
    Window,
    chunk_slot,
    init_cache,
    write_chunk,
    write_context,
)
from shotstream_jax.models.dit import (
    ChunkInput,
    apply_cached,
    encode_captions,
    keys_cached,
    keys_dense,
)
from tests.train.by_hand import (
    BUDGET,
    CHUNK,
    CLIP,
    DIT,
    FEW_STEPS,
    FRAMES,
    HOW,
    angles,
    few_sigmas,
    flow_draw,
    flow_error,
    sigmas,
    velocity,
)

CHUNKS, STEPS = FRAMES // CHUNK, len(FEW_STEPS)
TOKENS = CLIP[1] * CLIP[2] // (DIT.patch[0] * DIT.patch[1])
WINDOW = Window(chunk=CHUNK, context=BUDGET, local=FRAMES)
GUIDANCE = 4.0
RANGE = (20.0, 980.0)
"""Least and greatest timestep at which scores are compared."""

# Each part is compiled by itself, once for all chunks, steps and tests.
ask = jax.jit(velocity)
flow_gradient = jax.jit(jax.value_and_grad(flow_error))


@dataclasses.dataclass(frozen=True)
class Look:
    """One look of the generator at a chunk: what it saw and was given.

    Attributes:
      cache: keys and values of the context and of earlier chunks.
      chunk: which chunk.
      x_t: its noisy input.
      sigma: and how noisy that is.
    """

    cache: ShotCache
    chunk: int
    x_t: jax.Array
    sigma: float


@jax.jit
def prepared(params, shot):
    """A cache with the context in it, and the caption of the shot."""
    own = encode_captions(params, DIT, shot.texts[None, -1:], HOW)
    kv = keys_dense(
        params,
        DIT,
        shot.context[None],
        jnp.zeros((1, 1)),
        angles(jnp.arange(BUDGET), shot.shots[:-1]),
        encode_captions(params, DIT, shot.texts[None, :-1], HOW),
        caption_index=jnp.arange(BUDGET)[None],
        compute=HOW,
    )
    return dataclasses.replace(write_context(init_cache(DIT, WINDOW, own, TOKENS), kv), text=own)


def _inputs(cache, shot, chunk, latents, timestep):
    """What a pass over a chunk is given."""
    numbers = BUDGET + CHUNK * chunk + jnp.arange(CHUNK)
    turned = angles(numbers, jnp.stack([shot.shots[-1]] * CHUNK))
    told = jnp.full((1, 1), timestep, jnp.float32)
    slot = chunk_slot(WINDOW, TOKENS, chunk)
    return cache, ChunkInput(latents=latents[None], timesteps=told, rope=turned, slot=slot)


@jax.jit
def predict(params, shot, cache, chunk, x_t, sigma):
    """The clean chunk that a look leads to."""
    inputs = _inputs(cache, shot, chunk, x_t, 1000 * sigma)
    return x_t - sigma * apply_cached(params, DIT, *inputs, compute=HOW).velocity[0]


@jax.jit
def committed(params, shot, cache, chunk, latents):
    """The cache with the clean keys and values of a chunk."""
    kv = keys_cached(params, DIT, *_inputs(cache, shot, chunk, latents, 0.0), compute=HOW)
    return write_chunk(cache, kv, chunk)


@jax.jit
def look_gradient(params, shot, cache, chunk, x_t, sigma, toward):
    """What a gradient in the prediction of a look is in the parameters, what it saw being fixed."""

    def again(params):
        own = encode_captions(params, DIT, shot.texts[None, -1:], HOW)
        return predict(params, shot, dataclasses.replace(cache, text=own), chunk, x_t, sigma)

    _, pull = jax.vjp(again, params)
    return pull(toward)[0]


def roll(params, shot, noise, exit_step: int, *, finished: bool):
    """Make a shot chunk by chunk, committing exit predictions, or where all steps lead.

    Returns the predictions at the exit step, what was committed, and the looks of that step.
    """
    cache, latents, history, looks = prepared(params, shot), [], [], []
    for chunk in range(CHUNKS):
        x0 = None
        for step in range(STEPS if finished else exit_step + 1):
            sigma = few_sigmas()[step]
            mixed = noise[chunk, 0] if step == 0 else (1 - sigma) * x0 + sigma * noise[chunk, step]
            x0 = predict(params, shot, cache, chunk, mixed, sigma)
            if step == exit_step:
                latents.append(x0)
                looks.append(Look(cache, chunk, mixed, sigma))
        history.append(x0)
        cache = committed(params, shot, cache, chunk, x0)
    return jnp.concatenate(latents), jnp.concatenate(history), looks


def direction(latents, shot, fake, real, sigma, noise):
    """From where the real score would take the shot to where the fake one would."""
    x_t, told = (1 - sigma) * latents + sigma * noise, 1000 * sigma
    fake_x0 = x_t - sigma * ask(fake, shot, x_t, told)
    prompted = x_t - sigma * ask(real, shot, x_t, told)
    unprompted = x_t - sigma * ask(real, shot.without_prompt(), x_t, told)
    real_x0 = unprompted + GUIDANCE * (prompted - unprompted)
    return (fake_x0 - real_x0) / jnp.maximum(jnp.abs(latents - real_x0).mean(), 1e-4)


def generator_sample(shot, networks, draws, exit_step: int, *, finished: bool):
    """Loss, gradient and history of one sample of a generator's step.

    `networks` are the generator, the fake score and the real one.
    """
    generator, fake, real = networks
    noise, sigma, score_noise = draws
    latents, history, looks = roll(generator, shot, noise, exit_step, finished=finished)
    toward = direction(latents, shot, fake, real, sigma, score_noise)
    gradients = [
        look_gradient(generator, shot, look.cache, look.chunk, look.x_t, look.sigma, part)
        for look, part in zip(looks, jnp.split(toward / toward.size, CHUNKS), strict=True)
    ]
    gradient = jax.tree.map(lambda *leaves: sum(leaves), *gradients)
    return 0.5 * jnp.square(toward).mean(), gradient, history


def critic_sample(shot, networks, draws, exit_step: int, *, finished: bool):
    """Loss, gradient and history of one sample of a critic's step: the generator makes the shot."""
    generator, fake = networks
    noise, sigma, score_noise = draws
    latents, history, _ = roll(generator, shot, noise, exit_step, finished=finished)
    return *flow_gradient(fake, shot, latents, sigma, score_noise), history


def draws_of(key):
    """Of a sample's key: dropout's key; noise of the rollout, level and noise of the scores."""
    dropout_key, left = jax.random.split(key)
    rollout_key, score_key = jax.random.split(left)
    noise = jax.random.normal(rollout_key, (CHUNKS, STEPS, CHUNK, *CLIP[1:]))
    level, score_noise = flow_draw(score_key, *RANGE)
    return dropout_key, (noise, float(sigmas()[level]), score_noise)


def exit_step_of(shared) -> int:
    """The step that is trained, one for all samples."""
    return int(jax.random.randint(shared, (), 0, STEPS))
