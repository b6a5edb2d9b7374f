"""The training state: everything on the devices that a later step needs of earlier steps.

The position in the data is kept by the loader, on the host. There is no PRNG state: keys are a
function of seed, step and sample, so that a resumed run draws the same numbers. Parameters,
optimizer state and EMA are float32 whatever dtype a network computes in.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from shotstream_jax.pytree import pytree
from shotstream_jax.sharding import TRANSFORMER_RULES, Rules, shardings_for
from shotstream_jax.train.engine.optimizer import Objective
from shotstream_jax.train.losses import ParamsByNetwork
from shotstream_jax.typing import Array, Int, PyTree


@pytree
class TrainState:
    """The state between two steps. Dicts are by network, and hold the networks that are trained.

    Attributes:
      step: steps taken by all networks together, skipped ones included.
      seed: of all PRNG keys.
      params: parameters.
      opt_state: optimizer state, such as Adam's moments.
      ema_params: exponential moving averages of the parameters, of the networks that keep one.
      updates: optimizer updates made, by network: what schedule and EMA warm-up count.
      carry: what a stage passes from one step to the next, such as a film half rolled out; leaves
        begin with the batch axis.
      skipped: steps without an update, because loss or gradient was not finite.
      skipped_in_row: how many of the latest steps were skipped.
    """

    step: Int[Array, ""]
    seed: Int[Array, ""]
    params: dict[str, Any]
    opt_state: dict[str, Any]
    ema_params: dict[str, Any]
    updates: dict[str, Int[Array, ""]]
    carry: PyTree[Any]
    skipped: Int[Array, ""]
    skipped_in_row: Int[Array, ""]

    @property
    def export_params(self) -> dict[str, Any]:
        """The parameters to validate and export: the EMA of each network that keeps one."""
        return {**self.params, **self.ema_params}


def init_state(
    params: ParamsByNetwork,
    objectives: Mapping[str, Objective],
    seed: int = 0,
    carry: PyTree[Any] = (),
) -> TrainState:
    """The state before the first step, with a carry of zeros."""
    # Float32 masters: an update of 1e-5 of a weight is below the resolution of bfloat16 (2^-8),
    # and would be rounded away every time.
    masters = {
        name: jax.tree.map(lambda x: x.astype(jnp.float32), tree) for name, tree in params.items()
    }
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        seed=jnp.asarray(seed, jnp.int32),
        params=masters,
        opt_state={name: objectives[name].transformation().init(masters[name]) for name in masters},
        # The EMA starts at the parameters themselves. In a jitted caller both are outputs, so they
        # are two buffers: the step donates its state, and one buffer cannot be donated twice.
        ema_params={
            n: tree for n, tree in masters.items() if objectives[n].optimizer.ema is not None
        },
        updates=dict.fromkeys(masters, zero),
        carry=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), carry),
        skipped=zero,
        skipped_in_row=zero,
    )


def state_shardings(shapes: TrainState, mesh: Mesh, rules: Rules = TRANSFORMER_RULES) -> TrainState:
    """A sharding for every leaf of a state or its shapes.

    Optimizer state and EMA are sharded like their parameters, because their paths end in the same
    names; the carry is sharded like a batch.
    """
    carried = batch_sharding(mesh)

    def place(path: tuple[Any, ...], by_rule: NamedSharding) -> NamedSharding:
        # Leaves of the carry may have names that the parameter rules match, such as `k`.
        return carried if path[0].name == "carry" else by_rule

    return jax.tree_util.tree_map_with_path(place, shardings_for(shapes, mesh, rules))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Samples over `data` and `fsdp`, the axes that hold different samples."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
