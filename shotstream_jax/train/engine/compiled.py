"""A stage on a mesh: shardings of its state, and one compiled step for each trained network.

Shapes and shardings come before any array, so that the programs of a model of any size can be
lowered, and a checkpoint restored, without weights in memory.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from shotstream_jax.sharding import make_mesh, shardings_for
from shotstream_jax.train.engine.optimizer import Objective
from shotstream_jax.train.engine.stage import MeshConfig, Stage, Training, Weights
from shotstream_jax.train.engine.state import (
    TrainState,
    batch_sharding,
    init_state,
    state_shardings,
)
from shotstream_jax.train.engine.step import TrainStep, jit_step
from shotstream_jax.train.losses import Batch, ParamsByNetwork


@dataclasses.dataclass(frozen=True, kw_only=True)
class Programs:
    """The compiled steps of a stage.

    Attributes:
      mesh: the devices.
      shapes: of the state.
      shardings: of each leaf of the state.
      steps: the jitted step of each trained network. Its `lower` takes shapes.
    """

    mesh: Mesh
    shapes: TrainState
    shardings: TrainState
    steps: Mapping[str, TrainStep]


def build_programs(stage: Stage, training: Training, mesh: Mesh) -> Programs:
    """The programs of a stage, on the devices that it was bound for.

    Raises:
      ValueError: networks without an objective, or a mesh that does not fit the devices.
    """
    if stage.objectives.keys() != stage.weights.keys():
        raise ValueError(
            f"There are objectives for {', '.join(stage.objectives)} and weights of "
            f"{', '.join(stage.weights)}; give both for every network that learns."
        )
    shapes = jax.eval_shape(
        lambda params: init_state(params, stage.objectives, training.seed, stage.carry),
        {name: weights.shapes for name, weights in stage.weights.items()},
    )
    shardings = state_shardings(shapes, mesh)
    # Counted, not derived from a ratio: the schedule of a network ends with its last own update.
    turns = [stage.network_for_step(step) for step in range(training.steps)]
    frozen = {name: shardings_for(w.shapes, mesh) for name, w in stage.frozen.items()}
    steps = {
        name: jit_step(name, objective, turns.count(name), shardings, frozen, mesh)
        for name, objective in stage.objectives.items()
    }
    return Programs(mesh=mesh, shapes=shapes, shardings=shardings, steps=steps)


def first_state(stage: Stage, training: Training, programs: Programs) -> TrainState:
    """Load the initial parameters, and initialise the state around them."""
    params = {
        name: weights.load(programs.shardings.params[name])
        for name, weights in stage.weights.items()
    }
    start = jax.jit(
        lambda params: init_state(params, stage.objectives, training.seed, stage.carry),
        out_shardings=programs.shardings,
    )
    return start(params)


def load_networks(weights: Mapping[str, Weights], mesh: Mesh) -> ParamsByNetwork:
    """Load networks that are not trained."""
    # Sharded by the rules of trained networks: a replicated teacher would fill each device.
    return {name: w.load(shardings_for(w.shapes, mesh)) for name, w in weights.items()}


def place_batch(batch: Batch, objective: Objective, mesh: Mesh) -> Any:
    """Place a batch on the devices, split over samples.

    Raises:
      ValueError: a batch that does not divide among devices and pieces.
    """
    for name, array in batch.items():
        check_division(name, len(array), objective, mesh)
    return jax.device_put({k: np.asarray(v) for k, v in batch.items()}, batch_sharding(mesh))


def check_division(name: str, samples: int, objective: Objective, mesh: Mesh) -> None:
    """See that a batch divides among the devices that hold it, and into pieces.

    Raises:
      ValueError: it does not.
    """
    # Each device cuts the samples that it holds into microbatches (see step.py).
    holders = mesh.shape["data"] * mesh.shape["fsdp"]
    if samples % (holders * objective.accumulate):
        raise ValueError(
            f"A batch of {samples} {name} does not divide among {holders} devices (data x fsdp) "
            f"and {objective.accumulate} pieces each; make it a multiple of "
            f"{holders * objective.accumulate}."
        )


def mesh_of(config: MeshConfig) -> Mesh:
    """The mesh that a config asks for.

    Raises:
      ValueError: sizes that do not multiply to the devices there are.
    """
    # All that fsdp and tensor leave: `data` is the axis that any number of devices can fill.
    left = jax.device_count() // max(config.fsdp * config.tensor, 1)
    return make_mesh(data=config.data or max(left, 1), fsdp=config.fsdp, tensor=config.tensor)
