"""Stage 1: the bidirectional teacher learns the next shot by flow matching.

Clean context frames stand before the noisy target and are told its timestep, as in the released
weights. Context and captions are dropped beforehand, by `conditioning.drop`.

Source: public ShotStream repository, trainer/wan_frameconcat.py and model/flow_matching.py.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.pytree import pytree
from shotstream_jax.rollout.conditioning import Conditioning
from shotstream_jax.schedule import FlowSchedule
from shotstream_jax.train.objectives.flow_matching import FlowDraw, flow_errors
from shotstream_jax.typing import Array, Float, Latents, Params, PyTree

Trainable = Literal["all", "self_attention"]


@pytree
class Clip:
    """A shot as it was filmed, and what it is to be made from.

    Attributes:
      conditioning: earlier frames and captions.
      latents: clean latents of the shot.
    """

    conditioning: Conditioning
    latents: Latents


def teacher_loss(
    params: Params,
    config: DiTConfig,
    clip: Clip,
    draw: FlowDraw,
    *,
    schedule: FlowSchedule,
    compute: Compute = Compute(),
) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
    """Mean of the samples' flow-matching errors, each weighted by its timestep; and the errors."""
    errors = flow_errors(
        params, config, clip.conditioning, clip.latents, draw, schedule=schedule, compute=compute
    )
    weights = jnp.asarray(schedule.weights)[schedule.nearest(draw.timesteps)]
    return jnp.mean(weights * errors), errors


def trainable_mask(params: PyTree[Any], which: Trainable) -> PyTree[bool]:
    """Which parameters learn: all, or only the self-attention of every block."""

    def learns(path: tuple[Any, ...], _: Any) -> bool:
        return which == "all" or any(entry.key == which for entry in path)

    return jax.tree_util.tree_map_with_path(learns, params)
