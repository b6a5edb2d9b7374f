"""The steps that train, as shapes: what the loop jits, ready to be compiled for any target."""

import jax
from jax.sharding import Mesh

from shotstream_jax.perf.programs import Program
from shotstream_jax.sharding import placed_shapes, shardings_for
from shotstream_jax.train.programs import build_programs, check_division
from shotstream_jax.train.stage import Training
from shotstream_jax.train.state import batch_sharding


def training_programs(training: Training, mesh: Mesh) -> dict[str, Program]:
    """One program for each network that a stage trains, by its name; nothing is allocated.

    Raises:
      ValueError: sizes that do not fit together, a batch that does not divide over the mesh, or a
        stage whose batches differ in shape from one step to another.
    """
    stage = training.stage(mesh)
    if stage.batch_shapes is None:
        raise ValueError(
            f"The batches of {type(training).__name__} have no one shape; plan another stage."
        )
    for objective in stage.objectives.values():
        for name, leaf in stage.batch_shapes.items():
            check_division(name, leaf.shape[0], objective, mesh)
    built = build_programs(stage, training, mesh)
    frozen = {name: weights.shapes for name, weights in stage.frozen.items()}
    whole = {
        "state": placed_shapes(built.shapes, built.shardings),
        "frozen": {
            name: placed_shapes(shapes, shardings_for(shapes, mesh))
            for name, shapes in frozen.items()
        },
        "batch": {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=batch_sharding(mesh))
            for name, leaf in stage.batch_shapes.items()
        },
    }
    return {
        name: Program(name=name, function=step, arguments=whole, donated=(0,))
        for name, step in built.steps.items()
    }
