"""Many-step sampling of the bidirectional teacher, with guidance: Euler and UniPC.

The teacher sees clean context frames and noisy target frames side by side, all told the target's
timestep. Guidance compares the captions with a negative prompt; the context is in both, unless it
is guided by too.

Source: public ShotStream repository, Teacher_Ode_Sample.py; UniPC as in public Wan2.1,
wan/utils/fm_solvers_unipc.py (order 2, B(h) = expm1(h), x0 prediction); guidance by the context,
Song et al., "History-Guided Video Diffusion", 2025.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.models.cache import TextKeys
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.dit import apply_dense
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.rope import grid_positions, rotation
from shotstream_jax.pytree import pytree
from shotstream_jax.schedule import TRAIN_STEPS, FlowSchedule
from shotstream_jax.typing import Array, Float, Int, Latents, Params

Velocity = Callable[[Latents, Float[Array, ""]], Latents]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Sampling of the teacher.

    Attributes:
      steps: network calls (each twice, with and without the captions, where guidance is not 1).
      shift: of the flow schedule.
      guidance: how far past the negative prompt to go; 1 is no guidance.
      history_guidance: whether what is led away from lacks the earlier shots too, not the captions
        alone; more of them is then carried over.
      keep: steps whose inputs are returned as the trajectory (of ODE pairs).
    """

    steps: int = 50
    shift: float = 8.0
    guidance: float = 6.0
    history_guidance: bool = False
    keep: tuple[int, ...] = ()


@pytree
class Scene:
    """What the teacher is conditioned on.

    Attributes:
      context: clean latents of earlier shots.
      shots: shot number of every frame for the rotation, context then target.
      captions: which caption each frame reads, context then target.
      text: keys and values of the captions.
    """

    context: Latents
    shots: Int[Array, "batch any_frame"]
    captions: Int[Array, "batch any_frame"]
    text: TextKeys


@pytree
class Sampled:
    """The end of a trajectory, and the inputs of the steps that were to be kept."""

    x0: Latents
    kept: Float[Array, "kept batch frame row col chan"]


def guided_velocity(
    params: Params,
    config: DiTConfig,
    scene: Scene,
    negative: Scene,
    guidance: float,
    compute: Compute = Compute(),
) -> Velocity:
    """The teacher, led away from `negative`, as a function of noisy latents and one timestep."""

    def velocity(x_t: Latents, timestep: Float[Array, ""]) -> Latents:
        answer = _velocity(params, config, scene, x_t, timestep, compute)
        if guidance == 1:
            return answer
        unprompted = _velocity(params, config, negative, x_t, timestep, compute)
        return unprompted + guidance * (answer - unprompted)

    return velocity


def _velocity(
    params: Params,
    config: DiTConfig,
    scene: Scene,
    x_t: Latents,
    timestep: Float[Array, ""],
    compute: Compute,
) -> Latents:
    both = jnp.concatenate([scene.context, x_t], axis=1)
    rows, cols = (n // p for n, p in zip(both.shape[2:4], config.patch, strict=True))
    numbers = jnp.broadcast_to(jnp.arange(scene.shots.shape[1]), scene.shots.shape)
    proposal = apply_dense(
        params,
        config,
        both,
        jnp.full((both.shape[0], 1), timestep),
        rotation(
            grid_positions(numbers, scene.shots, rows, cols), config.head_dim, config.shot_phase
        ),
        scene.text,
        caption_index=scene.captions,
        compute=compute,
    )
    return proposal.velocity[:, scene.context.shape[1] :]


def sample_euler(velocity: Velocity, noise: Latents, config: SampleConfig) -> Sampled:
    """Follow the velocity from noise to film in even steps of the shifted schedule."""
    sigmas = np.append(FlowSchedule(shift=config.shift).spaced(config.steps), np.float32(0))
    slots = np.full(config.steps, len(config.keep))
    slots[list(config.keep)] = np.arange(len(config.keep))

    def step(carry: tuple[Latents, Array], level: tuple[Array, Array, Array]):
        x_t, kept = carry
        sigma, next_sigma, slot = level
        if config.keep:
            # A step that is not kept has a slot beyond the end, and is dropped.
            kept = kept.at[slot].set(x_t, mode="drop")
        return (x_t + (next_sigma - sigma) * velocity(x_t, sigma * TRAIN_STEPS), kept), None

    kept = jnp.zeros((len(config.keep), *noise.shape), noise.dtype)
    levels = jax.tree.map(jnp.asarray, (sigmas[:-1], sigmas[1:], slots))
    (x0, kept), _ = jax.lax.scan(step, (noise, kept), levels)
    return Sampled(x0=x0, kept=kept)


def sample_unipc(velocity: Velocity, noise: Latents, config: SampleConfig) -> Latents:
    """Predict and correct at second order: about as good as Euler with half the steps.

    Every update is a fixed linear mix of the last samples and predictions, so the whole solver
    is two tables of coefficients (`unipc_tables`) and one scan.
    """
    sigmas, correct, predict = unipc_tables(config.steps, config.shift)
    timesteps = np.floor(sigmas * TRAIN_STEPS).astype(np.float32)

    def step(carry: tuple[Latents, ...], level: tuple[Array, ...]):
        predicted, corrected, x0_before, x0_last = carry
        sigma, timestep, fix, go = level
        x0 = predicted - sigma * velocity(predicted, timestep)
        # Rows of the tables: (sample before, prediction two back, one back, now, this sample).
        corrected = (
            fix[0] * corrected + fix[1] * x0_before + fix[2] * x0_last + fix[3] * x0
        ) + fix[4] * predicted
        predicted = go[0] * corrected + go[1] * x0_last + go[2] * x0
        return (predicted, corrected, x0_last, x0), None

    zeros = jnp.zeros_like(noise)
    levels = jax.tree.map(jnp.asarray, (sigmas, timesteps, correct, predict))
    (x0, *_), _ = jax.lax.scan(step, (noise, noise, zeros, zeros), levels)
    return x0


def unipc_tables(
    steps: int, shift: float
) -> tuple[Float[np.ndarray, " step"], Float[np.ndarray, "step 5"], Float[np.ndarray, "step 3"]]:
    """Noise levels, corrector rows and predictor rows of `sample_unipc`.

    A corrector row weighs (last corrected sample, x0 two steps back, x0 one back, x0 now, the
    sample itself); a predictor row weighs (corrected sample, x0 one step back, x0 now).
    """
    u = np.linspace(np.float32(0.999), 0, steps + 1)[:-1]
    sigma = shift * u / (1 + (shift - 1) * u)
    alpha, log_snr = 1 - sigma, np.log1p(-sigma) - np.log(sigma)
    correct, predict = np.zeros((steps, 5)), np.zeros((steps, 3))
    correct[0, 4] = 1
    for i in range(1, steps):
        h = log_snr[i] - log_snr[i - 1]
        gain, back = alpha[i] * np.expm1(-h), 0.0
        now = 0.5
        if i >= 2:
            r = (log_snr[i - 2] - log_snr[i - 1]) / h
            kappa = np.expm1(-h) / -h - 1
            b1, b2 = kappa / np.expm1(-h), 2 * (kappa / -h - 0.5) / np.expm1(-h)
            rho = (b2 - b1) / (r - 1)
            back, now = rho / r, b1 - rho
        correct[i, :4] = (
            sigma[i] / sigma[i - 1],
            -gain * back,
            -gain * (1 - back - now),
            -gain * now,
        )
    for i in range(steps - 1):
        h = log_snr[i + 1] - log_snr[i]
        gain, back = alpha[i + 1] * np.expm1(-h), 0.0
        if i >= 1:
            back = 0.5 * h / (log_snr[i - 1] - log_snr[i])
        predict[i] = sigma[i + 1] / sigma[i], -gain * back, -gain * (1 - back)
    predict[-1, 2] = 1
    return sigma.astype(np.float32), correct.astype(np.float32), predict.astype(np.float32)
