"""Flow matching of a bidirectional network: the teacher's loss, and the critic's error.

Latents are mixed with noise at one level a sample, and the network, with the clean context beside
them, predicts the velocity `noise - x0`. Errors are float32 whatever the network computes in.

Source: public ShotStream repository, trainer/wan_frameconcat.py, model/flow_matching.py and
utils/loss.py.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.pytree import pytree
from shotstream_jax.rollout.conditioning import Conditioning, predict_velocity
from shotstream_jax.schedule import FlowNoise, FlowSchedule
from shotstream_jax.typing import Array, Float, Latents, Params, PyTree

Trainable = Literal["all", "self_attention"]


@pytree
class Clip:
    """A shot as it was filmed, and its conditioning.

    Attributes:
      conditioning: context frames and captions, after dropout.
      latents: clean latents of the shot.
    """

    conditioning: Conditioning
    latents: Latents


def teacher_loss(
    params: Params,
    config: DiTConfig,
    clip: Clip,
    draw: FlowNoise,
    *,
    schedule: FlowSchedule,
    compute: Compute = Compute(),
) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
    """Mean of the samples' flow-matching errors, each weighted by its timestep; and the errors."""
    errors = flow_errors(
        params, config, clip.conditioning, clip.latents, draw, schedule=schedule, compute=compute
    )
    # The schedule's bell: near 0 and 1000 one half of the velocity can be read off the input and
    # the other cannot be predicted; such timesteps count least.
    weights = jnp.asarray(schedule.weights)[schedule.nearest(draw.timesteps)]
    return jnp.mean(weights * errors), errors


def flow_errors(
    params: Params,
    config: DiTConfig,
    conditioning: Conditioning,
    latents: Latents,
    draw: FlowNoise,
    *,
    schedule: FlowSchedule,
    compute: Compute = Compute(),
) -> Float[Array, " batch"]:
    """Mean squared error of every sample's velocity, one timestep for all frames of a sample."""
    x_t = draw.add_to(latents, schedule)
    # One timestep a sample, for the clean context frames too: the released teacher was trained so.
    velocity = predict_velocity(
        params, config, conditioning, x_t, draw.timesteps[:, None], compute=compute
    )
    # A mean over elements, not a sum: learning rates then hold for clips of any size.
    return jnp.square(velocity - (draw.noise - latents)).mean(axis=(1, 2, 3, 4))


def trainable_mask(params: PyTree[Any], which: Trainable) -> PyTree[bool]:
    """Which parameters are trained: all, or only the self-attention of every block."""

    def is_trained(path: tuple[Any, ...], _: Any) -> bool:
        # Layers are stacked under one `blocks`, so that a name marks those of all of them.
        return which == "all" or any(entry.key == which for entry in path)

    return jax.tree_util.tree_map_with_path(is_trained, params)
