"""Stages 3 and 4: distribution matching, from two score networks to a gradient in latents.

Both score networks predict clean latents from the generator's latents, noised. The real score (the
teacher) points towards its own distribution, the fake score (the critic) towards the generator's;
the generator's latents are moved along their difference:

    direction = (fake x0 - real x0) / mean |x0 - real x0|        gradient = direction / elements

`guidance` is in the usual convention, 1 is none; the public "3.0" counts from the conditional
prediction and is 4 here. The negative prompt takes the place of every caption, the context's too.

Source: DMD2 (arXiv 2405.14867); public ShotStream repository, model/dmd_frameconcat.py.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.pytree import pytree
from shotstream_jax.rollout.conditioning import (
    Conditioning,
    NegativeText,
    negative_conditioning,
    predict_velocity,
)
from shotstream_jax.schedule import FlowNoise, FlowSchedule, velocity_to_x0
from shotstream_jax.train.objectives.flow_matching import flow_errors
from shotstream_jax.train.objectives.self_forcing import (
    RolloutNoise,
    RolloutResult,
    SelfForcing,
    recompute_exit_steps,
    rollout_no_grad,
)
from shotstream_jax.typing import Array, Float, Latents, Params

SMALLEST_DISTANCE = 1e-4
"""Mean distance to the real score below which the direction is no longer scaled up.

Latents are of unit variance; only a generator that already agrees with the teacher to four digits
comes so close, and dividing by less would turn rounding errors into full-size gradients.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DMDConfig:
    """At which noise levels the scores are compared, and how the real one is guided.

    Attributes:
      guidance: how far past the negative prompt the real score goes; 1 is no guidance.
      history_guidance: guide by the context too: the negative branch has none.
      timesteps: least and greatest timestep at which they are compared. Nearer to 1000 nothing of
        the latents is left to compare, nearer to 0 nothing is left to predict (as in DMD, which
        takes 0.02 to 0.98 over from DreamFusion).
      shift: of the flow schedule.
    """

    guidance: float = 4.0
    history_guidance: bool = False
    timesteps: tuple[float, float] = (20.0, 980.0)
    shift: float = 8.0

    def __post_init__(self) -> None:
        """Raises: ValueError: a range that holds no training timestep."""
        if not self.timestep_table.size:
            raise ValueError(
                f"No training timestep lies in {self.timesteps} at shift {self.shift:g}; "
                "widen the range within [0, 1000]."
            )

    @property
    def schedule(self) -> FlowSchedule:
        """The flow schedule."""
        return FlowSchedule(shift=self.shift)

    @property
    def timestep_table(self) -> Float[np.ndarray, " level"]:
        """The training timesteps inside the range, to draw from evenly.

        Those outside are left out. The public trainer moves them to the ends of the range instead,
        where a seventh of all its draws fall (see reference_compat.py).
        """
        every, (low, high) = self.schedule.timesteps, self.timesteps
        return every[(every >= low) & (every <= high)]


@pytree
class ScoreNetworks:
    """Parameters of the two networks that score the generator.

    Attributes:
      real: of the teacher, which is never trained.
      fake: of the critic.
    """

    real: Params
    fake: Params


@pytree
class GeneratorNoise:
    """Random draws of one generator loss: of the rollout, and of its scoring."""

    rollout: RolloutNoise
    score: FlowNoise


@pytree
class GeneratorAux:
    """What a generator loss returns beside its value.

    Attributes:
      result: the rollout, whose history is context of later shots.
      direction_abs_mean: mean absolute value of the direction.
    """

    result: RolloutResult
    direction_abs_mean: Float[Array, ""]


def generator_loss(
    params: Params,
    config: DiTConfig,
    scores: ScoreNetworks,
    conditioning: Conditioning,
    negative: NegativeText,
    draw: GeneratorNoise,
    *,
    forcing: SelfForcing,
    dmd: DMDConfig,
    compute: Compute = Compute(),
) -> tuple[Float[Array, ""], GeneratorAux]:
    """Roll a shot out by self-forcing and score it; only the generator gets a gradient."""
    how = {"forcing": forcing, "compute": compute}
    # What is scored is what has a gradient: the exit predictions of phase 2, equal in value to
    # those of phase 1, and not the finished frames that later chunks and shots condition on.
    result = rollout_no_grad(params, config, conditioning, draw.rollout, **how)
    latents = recompute_exit_steps(
        params, config, conditioning, result, draw.rollout.exit_step, **how
    )
    direction = dmd_direction(
        latents, config, scores, conditioning, negative, draw.score, dmd=dmd, compute=compute
    )
    aux = GeneratorAux(result=result, direction_abs_mean=jnp.abs(direction).mean())
    return dmd_loss(latents, direction), aux


def critic_loss(
    params: Params,
    config: DiTConfig,
    conditioning: Conditioning,
    latents: Latents,
    draw: FlowNoise,
    *,
    dmd: DMDConfig,
    compute: Compute = Compute(),
) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
    """Mean flow-matching error of the fake score on generated latents; and of every sample."""
    # The critic describes the generator's latents; it must not make them easier to describe.
    latents = jax.lax.stop_gradient(latents)
    errors = flow_errors(
        params, config, conditioning, latents, draw, schedule=dmd.schedule, compute=compute
    )
    # Unweighted, unlike the teacher's loss: the fake score is asked at all levels alike.
    return errors.mean(), errors


def dmd_direction(
    latents: Latents,
    config: DiTConfig,
    scores: ScoreNetworks,
    conditioning: Conditioning,
    negative: NegativeText,
    draw: FlowNoise,
    *,
    dmd: DMDConfig,
    compute: Compute = Compute(),
) -> Latents:
    """From the real score to the fake one, in units of each sample's distance to the real one."""
    # No gradient through either score: that of their Jacobians is left out, as in DreamFusion
    # (arXiv 2209.14988), section 3.
    latents, scores = jax.lax.stop_gradient((latents, scores))
    # Both scores see the same noise at the same level, or their difference would be mostly noise.
    x_t, sigmas = draw.add_to(latents, dmd.schedule), draw.sigmas(dmd.schedule)

    def x0_of(params: Params, conditioning: Conditioning) -> Latents:
        timesteps = draw.timesteps[:, None]
        velocity = predict_velocity(params, config, conditioning, x_t, timesteps, compute=compute)
        return velocity_to_x0(x_t, velocity, sigmas)

    fake, real = x0_of(scores.fake, conditioning), x0_of(scores.real, conditioning)
    # The real score alone is guided: the fake one must describe the generator as it is.
    if dmd.guidance != 1:
        blank = negative_conditioning(conditioning, negative, history=dmd.history_guidance)
        unconditional = x0_of(scores.real, blank)
        real = unconditional + dmd.guidance * (real - unconditional)
    # DMD (arXiv 2311.18828), equation 8: predictions from noisier latents are further off and
    # would otherwise dominate; divided by its own distance, every sample pushes about as hard.
    distance = jnp.abs(latents - real).mean(axis=(1, 2, 3, 4), keepdims=True)
    return (fake - real) / jnp.maximum(distance, SMALLEST_DISTANCE)


def dmd_loss(latents: Latents, direction: Latents) -> Float[Array, ""]:
    """Half the mean square of the direction; its gradient in latents is direction / elements."""
    # The value is only for plots: the loss is written as a regression whose gradient is the given
    # direction, since the direction itself is no gradient of anything.
    target = jax.lax.stop_gradient(latents - direction)
    return 0.5 * jnp.square(latents - target).mean()
