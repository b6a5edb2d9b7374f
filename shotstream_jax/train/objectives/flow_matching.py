"""The flow-matching error of a bidirectional network: what the teacher and the critic minimise.

Latents are mixed with noise at one level a sample, and the network, shown the clean context beside
them, is to say which way the noise lies. Errors are float32 whatever the network computes in.

Source: public ShotStream repository, model/flow_matching.py and utils/loss.py.
"""

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.pytree import pytree
from shotstream_jax.rollout.conditioning import Conditioning, predict_velocity
from shotstream_jax.schedule import FlowSchedule, add_noise
from shotstream_jax.typing import Array, Float, Key, Latents, Params


@pytree
class FlowDraw:
    """The chance in one flow-matching error.

    Attributes:
      timesteps: how far each sample is noised, in [0, 1000].
      noise: what it is mixed with.
    """

    timesteps: Float[Array, " batch"]
    noise: Latents


def draw_flow(
    samples: Key[Array, " batch"], shape: tuple[int, ...], timesteps: Float[np.ndarray, " level"]
) -> FlowDraw:
    """Draw from each sample's key a timestep, evenly from a table, and noise of one's `shape`."""

    def draw(key: Key[Array, ""]) -> tuple[Array, Array]:
        level_key, noise_key = jax.random.split(key)
        timestep = jax.random.choice(level_key, jnp.asarray(timesteps))
        return timestep, jax.random.normal(noise_key, shape)

    drawn, noise = jax.vmap(draw)(samples)
    return FlowDraw(timesteps=drawn, noise=noise)


def diffuse(latents: Latents, draw: FlowDraw, schedule: FlowSchedule) -> Latents:
    """Noise latents to the training level nearest to the drawn timesteps."""
    return add_noise(latents, draw.noise, sample_sigmas(draw, schedule))


def sample_sigmas(draw: FlowDraw, schedule: FlowSchedule) -> Float[Array, "batch 1 1 1 1"]:
    """Noise level of every sample, shaped to broadcast against latents."""
    return schedule.sigma_at(draw.timesteps)[:, None, None, None, None]


def flow_errors(
    params: Params,
    config: DiTConfig,
    conditioning: Conditioning,
    latents: Latents,
    draw: FlowDraw,
    *,
    schedule: FlowSchedule,
    compute: Compute = Compute(),
) -> Float[Array, " batch"]:
    """Mean squared error of every sample's velocity; all frames are told one timestep."""
    x_t = diffuse(latents, draw, schedule)
    velocity = predict_velocity(
        params, config, conditioning, x_t, draw.timesteps[:, None], compute=compute
    )
    return jnp.square(velocity - (draw.noise - latents)).mean(axis=(1, 2, 3, 4))
