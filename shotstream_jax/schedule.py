"""The flow-matching schedule: noise levels, timesteps, the algebra between them, and draws of both.

Time runs from noise to film: `sigma` 1 (timestep 1000) is pure noise, `sigma` 0 the clean latents.

    x_t = (1 - sigma) x0 + sigma noise        velocity = noise - x0        x0 = x_t - sigma velocity

Levels and timesteps are made on the host, and equal the public implementation's float32 values to
the last bit.

Source: shifted flow matching as in the public ShotStream repository, utils/scheduler.py.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.pytree import pytree
from shotstream_jax.typing import Array, Float, Int, Key, Latents

# Wan2.1 is trained on 1000 levels; timesteps are noise levels times this number.
TRAIN_STEPS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowSchedule:
    """Noise levels `sigma = shift u / (1 + (shift - 1) u)` of evenly spaced `u`.

    Attributes:
      shift: values above 1 move levels towards noise; 8 for the released models.
    """

    shift: float = 8.0

    def __post_init__(self) -> None:
        """Raises: ValueError: a shift that is not positive."""
        if not self.shift > 0:
            raise ValueError(f"shift {self.shift} must be positive; the released models use 8.")

    @functools.cached_property
    def sigmas(self) -> Float[np.ndarray, " level"]:
        """The 1000 training levels, from 1 downwards; 0 itself is not among them."""
        return self.spaced(TRAIN_STEPS)

    @functools.cached_property
    def timesteps(self) -> Float[np.ndarray, " level"]:
        """The same levels as timesteps, the networks' input, in (0, 1000]."""
        return self.sigmas * np.float32(TRAIN_STEPS)

    @functools.cached_property
    def weights(self) -> Float[np.ndarray, " level"]:
        """Loss weight of each training level: a bell around timestep 500, of mean 1."""
        # The public scheduler's Gaussian around the middle of the schedule, lowered until the least
        # important level has weight 0, then scaled to mean 1 so that the loss keeps its size.
        bell = np.exp(-2 * ((self.timesteps - TRAIN_STEPS / 2) / TRAIN_STEPS) ** 2)
        lifted = bell - bell.min()
        return (lifted * (TRAIN_STEPS / lifted.sum())).astype(np.float32)

    def spaced(self, steps: int) -> Float[np.ndarray, " step"]:
        """Noise levels of `steps` even steps from noise towards, not including, clean."""
        u = _linspace_down(steps)
        shift = np.float32(self.shift)
        return shift * u / (1 + (shift - 1) * u)

    def few_steps(self, nominal: tuple[int, ...]) -> Float[np.ndarray, " step"]:
        """Noise levels of a few-step list given on the unshifted scale, such as (1000, 740, ...).

        Level 0 is the clean end. The network's timestep is `TRAIN_STEPS * sigma`.

        Raises:
          ValueError: a level outside [0, 1000], or levels that do not decrease.
        """
        if not nominal or any(not 0 <= level <= TRAIN_STEPS for level in nominal):
            raise ValueError(f"Few-step levels {nominal} must lie in [0, {TRAIN_STEPS}].")
        if any(a <= b for a, b in itertools.pairwise(nominal)):
            raise ValueError(f"Few-step levels {nominal} must decrease, from noise to clean.")
        # Nominal level n is index 1000 - n of the shifted list, with the clean end appended.
        ends = np.append(self.sigmas, np.float32(0))
        return ends[[TRAIN_STEPS - level for level in nominal]]

    def nearest(self, timestep: Float[Array, "..."]) -> Int[Array, "..."]:
        """Index of the training level nearest to a timestep, the noisier one on a tie."""
        # `argmin` returns the first of equals, and levels decrease: the noisier one.
        distance = jnp.abs(jnp.asarray(self.timesteps) - jnp.asarray(timestep)[..., None])
        return jnp.argmin(distance, axis=-1)

    def sigma_at(self, timestep: Float[Array, "..."]) -> Float[Array, "..."]:
        """Noise level of the nearest training level (0.0079 at timestep 0, never 0)."""
        return jnp.asarray(self.sigmas)[self.nearest(timestep)]


@pytree
class FlowNoise:
    """Random draws of one flow-matching error.

    Attributes:
      timesteps: how far each sample is noised, in [0, 1000].
      noise: what it is mixed with.
    """

    timesteps: Float[Array, " batch"]
    noise: Latents

    def sigmas(self, schedule: FlowSchedule) -> Float[Array, "batch 1 1 1 1"]:
        """Noise level of every sample, shaped to broadcast against latents."""
        return schedule.sigma_at(self.timesteps)[:, None, None, None, None]

    def add_to(self, latents: Latents, schedule: FlowSchedule) -> Latents:
        """Noise latents to the training level nearest to the drawn timesteps."""
        return add_noise(latents, self.noise, self.sigmas(schedule))


def draw_flow_noise(
    samples: Key[Array, " batch"], shape: tuple[int, ...], timesteps: Float[np.ndarray, " level"]
) -> FlowNoise:
    """Draw from each sample's key a timestep, evenly from a table, and noise of one's `shape`."""

    def draw(key: Key[Array, ""]) -> tuple[Array, Array]:
        level_key, noise_key = jax.random.split(key)
        timestep = jax.random.choice(level_key, jnp.asarray(timesteps))
        return timestep, jax.random.normal(noise_key, shape)

    drawn, noise = jax.vmap(draw)(samples)
    return FlowNoise(timesteps=drawn, noise=noise)


def add_noise(
    x0: Float[Array, "*shape"], noise: Float[Array, "*shape"], sigma: Float[Array, "..."]
) -> Float[Array, "*shape"]:
    """Mix clean latents with noise at level `sigma` (broadcast against both)."""
    return (1 - sigma) * x0 + sigma * noise


def velocity_to_x0(
    x_t: Float[Array, "*shape"], velocity: Float[Array, "*shape"], sigma: Float[Array, "..."]
) -> Float[Array, "*shape"]:
    """The clean latents that a velocity points back to."""
    return x_t - sigma * velocity


def x0_to_velocity(
    x_t: Float[Array, "*shape"], x0: Float[Array, "*shape"], sigma: Float[Array, "..."]
) -> Float[Array, "*shape"]:
    """The velocity whose x0 prediction at `x_t` is `x0`; `sigma` must not be 0."""
    return (x_t - x0) / sigma


def _linspace_down(steps: int) -> Float[np.ndarray, " step"]:
    """`1 - i / steps` in float32, rounded as a two-ended float32 linspace rounds."""
    i = np.arange(steps + 1)
    step = np.float64(np.float32(-1) / np.float32(steps))
    # torch.linspace counts from both ends and rounds once a value, as a fused multiply-add does:
    # sums in float64, the step itself in float32.
    from_start, from_end = 1 + step * i, -step * (steps - i)
    return np.where(i < (steps + 1) // 2, from_start, from_end)[:-1].astype(np.float32)
