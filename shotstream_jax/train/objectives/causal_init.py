"""Stage 2: the causal student learns to end where the teacher's trajectories end.

A trajectory holds a shot at every few-step noise level, the clean end last. Each chunk is given at
a level of its own and predicts the clean end; chunks attend to the context, to earlier chunks (each
at its own level) and to themselves:

    levels of chunks    1 3 4        level 4 is the clean end: context for later chunks, not scored
    timesteps           T1 T3 0      and 0 for the context

Source: public ShotStream repository, model/ode_regression.py.
"""

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.pytree import pytree
from shotstream_jax.rollout.conditioning import Conditioning, predict_velocity
from shotstream_jax.schedule import TRAIN_STEPS, velocity_to_x0
from shotstream_jax.typing import Array, Float, Int, Key, Latents, Params


@pytree
class OdePair:
    """A trajectory of the teacher, and what the shot was made from.

    Attributes:
      conditioning: earlier frames and captions.
      trajectory: the shot at every few-step level, from pure noise to clean.
    """

    conditioning: Conditioning
    trajectory: Float[Array, "batch level target_frame row col chan"]


def draw_levels(
    samples: Key[Array, " batch"], chunks: int, steps: int
) -> Int[Array, "batch chunk"]:
    """Draw from each sample's key a level in [0, `steps`] for every chunk; the last is clean.

    Should all chunks of a sample come out clean, one of them is drawn again among the noisy
    levels: a sample always has something to learn.
    """

    def draw(key: Key[Array, ""]) -> Int[Array, " chunk"]:
        level_key, chunk_key, again_key = jax.random.split(key, 3)
        # A level for each chunk, as in diffusion forcing (arXiv 2407.01392), and `steps` itself for
        # the clean end: when filming, earlier chunks are clean and only the last one is noisy.
        levels = jax.random.randint(level_key, (chunks,), 0, steps + 1)
        redrawn = levels.at[jax.random.randint(chunk_key, (), 0, chunks)].set(
            jax.random.randint(again_key, (), 0, steps)
        )
        return jnp.where((levels == steps).all(), redrawn, levels)

    return jax.vmap(draw)(samples)


def causal_init_loss(
    params: Params,
    config: DiTConfig,
    pair: OdePair,
    levels: Int[Array, "batch chunk"],
    *,
    rollout: RolloutConfig,
    compute: Compute = Compute(),
) -> tuple[Float[Array, ""], Float[Array, "batch chunk"]]:
    """Mean over samples of the error of their noisy chunks; and the error of every chunk.

    An error is the mean square of what was predicted less the clean end.

    Raises:
      ValueError: a trajectory that is not one state a level, or not whole chunks.
    """
    _check(pair, levels, rollout)
    chunk = rollout.window.chunk
    level_of_frame = jnp.repeat(levels, chunk, axis=1)
    # One place past the few steps is the clean end, at noise level 0.
    sigmas = jnp.asarray(np.append(rollout.sigmas, np.float32(0)))[level_of_frame]
    x_t = _at_level(pair.trajectory, level_of_frame)
    # The student's context is clean and says so, timestep 0; only the teacher, which the student
    # starts as, gives the target's timestep to its context too.
    context = jnp.zeros(pair.conditioning.context_shots.shape)
    velocity = predict_velocity(
        params,
        config,
        pair.conditioning,
        x_t,
        jnp.concatenate([context, sigmas * TRAIN_STEPS], axis=1),
        levels=(context.shape[1],) + (chunk,) * levels.shape[1],
        compute=compute,
    )
    # Compared as x0, as in the public trainer: as velocity, (x_t - end) / sigma, errors of the
    # lower levels would weigh 1 / sigma^2 more.
    x0 = velocity_to_x0(x_t, velocity, sigmas[..., None, None, None])
    squares = jnp.square(x0 - pair.trajectory[:, -1]).mean(axis=(2, 3, 4))
    errors = squares.reshape(*levels.shape, chunk).mean(axis=2)
    noisy = levels < len(rollout.steps)
    # A mean over the chunks that are scored: with a mean over all, a sample with many clean chunks
    # would pull less. `draw_levels` leaves none without a noisy chunk; the maximum is for levels
    # that a caller chose.
    of_sample = jnp.sum(errors * noisy, axis=1) / jnp.maximum(jnp.sum(noisy, axis=1), 1)
    return of_sample.mean(), errors


def _at_level(
    trajectory: Float[Array, "batch level frame row col chan"], levels: Int[Array, "batch frame"]
) -> Latents:
    """Every frame at its own level."""
    index = levels[:, None, :, None, None, None]
    return jnp.take_along_axis(trajectory, index, axis=1)[:, 0]


def _check(pair: OdePair, levels: Int[Array, "batch chunk"], rollout: RolloutConfig) -> None:
    states, frames = pair.trajectory.shape[1:3]
    if states != len(rollout.steps) + 1:
        raise ValueError(
            f"A trajectory of {states} states for {len(rollout.steps)} steps; sample pairs that "
            f"keep the input of every step and the end, {len(rollout.steps) + 1} states."
        )
    if frames != levels.shape[1] * rollout.window.chunk:
        raise ValueError(
            f"A trajectory of {frames} frames for {levels.shape[1]} chunks of "
            f"{rollout.window.chunk}; cut it to whole chunks."
        )
