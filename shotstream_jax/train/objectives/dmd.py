"""Stages 3 and 4: distribution matching, from two scores to a gradient in latents.

Both score networks look at the generator's latents, noised. The real score says where the teacher
would take them, the fake score (the critic) where the generator's own films lie; the generator is
pushed from the second to the first:

    direction = (fake x0 - real x0) / mean |x0 - real x0|        gradient = direction / elements

`guidance` is in the usual convention, 1 is none; the public "3.0" counts from the conditional
prediction and is 4 here. The negative prompt takes the place of every caption, the context's too.

Source: DMD2 (arXiv 2405.14867); public ShotStream repository, model/dmd_frameconcat.py.
"""

import dataclasses
from typing import Literal

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
from shotstream_jax.schedule import FlowSchedule, velocity_to_x0
from shotstream_jax.train.objectives.flow_matching import (
    FlowDraw,
    diffuse,
    flow_errors,
    sample_sigmas,
)
from shotstream_jax.train.objectives.self_forcing import (
    RolloutDraw,
    SelfForcing,
    Take,
    film,
    retake,
)
from shotstream_jax.typing import Array, Float, Latents, Params

SMALLEST_DISTANCE = 1e-4
"""Mean distance to the real score below which the direction is no longer scaled up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DMDConfig:
    """How the scores are asked.

    Attributes:
      guidance: how far past the negative prompt the real score goes; 1 is no guidance.
      history_guidance: whether that is led away from shots without their history too.
      timesteps: least and greatest timestep at which they are compared.
      outside: what becomes of training timesteps beyond these: never drawn, or clamped to them
        (as in the public trainer: a seventh of all draws are then the greatest).
      shift: of the flow schedule.
    """

    guidance: float = 4.0
    history_guidance: bool = False
    timesteps: tuple[float, float] = (20.0, 980.0)
    outside: Literal["drop", "clamp"] = "drop"
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
        """The timesteps to draw from, evenly."""
        every, (low, high) = self.schedule.timesteps, self.timesteps
        if self.outside == "clamp":
            return np.clip(every, np.float32(low), np.float32(high))
        return every[(every >= low) & (every <= high)]


@pytree
class Scores:
    """The two networks that judge the generator.

    Attributes:
      real: parameters of the teacher, which never learns.
      fake: parameters of the critic.
    """

    real: Params
    fake: Params


@pytree
class GeneratorDraw:
    """The chance in one generator loss: of the rollout, and of its scoring."""

    rollout: RolloutDraw
    score: FlowDraw


@pytree
class GeneratorReport:
    """What a generator loss leaves behind.

    Attributes:
      take: the rollout, whose history a next shot may remember.
      push: mean magnitude of the direction.
    """

    take: Take
    push: Float[Array, ""]


def generator_loss(
    params: Params,
    config: DiTConfig,
    scores: Scores,
    conditioning: Conditioning,
    negative: NegativeText,
    draw: GeneratorDraw,
    *,
    forcing: SelfForcing,
    dmd: DMDConfig,
    compute: Compute = Compute(),
) -> tuple[Float[Array, ""], GeneratorReport]:
    """Film a shot by self-forcing and score it; the gradient reaches the generator alone."""
    how = {"forcing": forcing, "compute": compute}
    take = film(params, config, conditioning, draw.rollout, **how)
    latents = retake(params, config, conditioning, take, draw.rollout.exit_step, **how)
    direction = dmd_direction(
        latents, config, scores, conditioning, negative, draw.score, dmd=dmd, compute=compute
    )
    report = GeneratorReport(take=take, push=jnp.abs(direction).mean())
    return dmd_loss(latents, direction), report


def critic_loss(
    params: Params,
    config: DiTConfig,
    conditioning: Conditioning,
    latents: Latents,
    draw: FlowDraw,
    *,
    dmd: DMDConfig,
    compute: Compute = Compute(),
) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
    """Mean flow-matching error of the fake score on a take's latents; and of every sample."""
    latents = jax.lax.stop_gradient(latents)
    errors = flow_errors(
        params, config, conditioning, latents, draw, schedule=dmd.schedule, compute=compute
    )
    return errors.mean(), errors


def dmd_direction(
    latents: Latents,
    config: DiTConfig,
    scores: Scores,
    conditioning: Conditioning,
    negative: NegativeText,
    draw: FlowDraw,
    *,
    dmd: DMDConfig,
    compute: Compute = Compute(),
) -> Latents:
    """Away from the real score, towards the fake one, in units of each sample's distance to it."""
    latents, scores = jax.lax.stop_gradient((latents, scores))
    x_t = diffuse(latents, draw, dmd.schedule)

    def x0_of(params: Params, conditioning: Conditioning) -> Latents:
        timesteps = draw.timesteps[:, None]
        velocity = predict_velocity(params, config, conditioning, x_t, timesteps, compute=compute)
        return velocity_to_x0(x_t, velocity, sample_sigmas(draw, dmd.schedule))

    fake, real = x0_of(scores.fake, conditioning), x0_of(scores.real, conditioning)
    if dmd.guidance != 1:
        blank = negative_conditioning(conditioning, negative, history=dmd.history_guidance)
        unprompted = x0_of(scores.real, blank)
        real = unprompted + dmd.guidance * (real - unprompted)
    distance = jnp.abs(latents - real).mean(axis=(1, 2, 3, 4), keepdims=True)
    return (fake - real) / jnp.maximum(distance, SMALLEST_DISTANCE)


def dmd_loss(latents: Latents, direction: Latents) -> Float[Array, ""]:
    """Half the mean square of the direction; its gradient in latents is direction / elements."""
    target = jax.lax.stop_gradient(latents - direction)
    return 0.5 * jnp.square(latents - target).mean()
