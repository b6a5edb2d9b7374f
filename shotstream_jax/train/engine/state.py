"""The state of a training run: everything that a later step needs of the steps before it.

The position in the data is the only other thing; it lives with the loader, on the host. There is no
random state: chance is a function of seed, step and sample, so that a run that stops and resumes
draws the same numbers. Parameters are float32 whatever a network computes in.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from shotstream_jax.pytree import pytree
from shotstream_jax.sharding import TRANSFORMER_RULES, Rules, shardings_for
from shotstream_jax.train.engine.objective import Networks, Objective
from shotstream_jax.typing import Array, Int, PyTree


@pytree
class TrainState:
    """One run between two steps. Dicts are by network, for the networks that learn.

    Attributes:
      step: steps taken, skipped ones included.
      seed: where all randomness starts.
      params: parameters.
      moments: what the optimizers remember of the gradients.
      means: running means of the parameters, for the networks that keep one.
      updates: updates made.
      carry: what a stage hands from one step to the next, such as a film half made; leaves begin
        with the batch axis.
      skipped: steps that made no update, because loss or gradient were not finite.
      skipped_in_row: how many of them are the latest ones.
    """

    step: Int[Array, ""]
    seed: Int[Array, ""]
    params: dict[str, Any]
    moments: dict[str, Any]
    means: dict[str, Any]
    updates: dict[str, Int[Array, ""]]
    carry: PyTree[Any]
    skipped: Int[Array, ""]
    skipped_in_row: Int[Array, ""]

    @property
    def best(self) -> dict[str, Any]:
        """The parameters to use: of each network the running mean, if it keeps one."""
        return {**self.params, **self.means}


def init_state(
    params: Networks,
    objectives: Mapping[str, Objective],
    seed: int = 0,
    carry: PyTree[Any] = (),
) -> TrainState:
    """The state before the first step, with zeros for what is carried."""
    masters = {
        name: jax.tree.map(lambda x: x.astype(jnp.float32), tree) for name, tree in params.items()
    }
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        seed=jnp.asarray(seed, jnp.int32),
        params=masters,
        moments={name: objectives[name].transformation().init(masters[name]) for name in masters},
        means={n: tree for n, tree in masters.items() if objectives[n].optimizer.ema is not None},
        updates=dict.fromkeys(masters, zero),
        carry=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), carry),
        skipped=zero,
        skipped_in_row=zero,
    )


def state_shardings(shapes: TrainState, mesh: Mesh, rules: Rules = TRANSFORMER_RULES) -> TrainState:
    """A sharding for every leaf of a state or its shapes.

    Moments and means lie where their parameters lie, because their paths end in the same names;
    what is carried is split like a batch.
    """
    carried = batch_sharding(mesh)

    def place(path: tuple[Any, ...], by_rule: NamedSharding) -> NamedSharding:
        return carried if path[0].name == "carry" else by_rule

    return jax.tree_util.tree_map_with_path(place, shardings_for(shapes, mesh, rules))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Samples over `data` and `fsdp`, the axes that hold different samples."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
