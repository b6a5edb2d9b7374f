"""Plans of an experiment: what a stage jits, as shapes, compiled for any target.

A stage has one program for each network that it trains; what makes a dataset has one.
"""

import multiprocessing
import pathlib
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import jax
from jax.sharding import Mesh

from shotstream_jax.perf.plan.compile import Plan, plan_program
from shotstream_jax.perf.plan.film_programs import Program
from shotstream_jax.perf.targets import find_target, training_mesh
from shotstream_jax.sharding import placed_shapes, shardings_for
from shotstream_jax.train.engine.compiled import build_programs, check_division
from shotstream_jax.train.engine.dataset_job import DatasetJob
from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.engine.pipeline import Experiment
from shotstream_jax.train.engine.stage import Training, Weights
from shotstream_jax.train.engine.state import batch_sharding


def plan_experiment(
    file: pathlib.Path,
    target: str,
    mesh: str = "",
    *,
    watch: Callable[[str], None] = lambda _: None,
) -> dict[str, Plan]:
    """Plan all programs of an experiment file, on its own mesh or on the one that is asked for.

    Each is compiled in a process of its own: the compiler takes many gigabytes for a full-size
    step, and gives none of them back. `watch` hears the name of each before it is compiled.

    Raises:
      ValueError: a file, target, mesh or sizes that will not do, or a compiler that was stopped.
    """
    # Spawned, not forked: JAX holds threads and locks that a forked child would inherit dead.
    plans, fresh = {}, multiprocessing.get_context("spawn")
    for name in _programs(file, target, mesh)[0]:
        watch(name)
        try:
            with ProcessPoolExecutor(1, mp_context=fresh) as process:
                plans[name] = process.submit(_plan_one, file, target, mesh, name).result()
        except BrokenProcessPool as error:
            raise ValueError(
                f"The compiler of {name} in {file} was stopped, most likely because memory ran "
                "out; end other programs, or plan on a machine with more."
            ) from error
    return plans


def experiment_programs(experiment: Experiment, mesh: Mesh) -> dict[str, Program]:
    """The programs of an experiment by what they train or make; nothing is allocated.

    Raises:
      ValueError: sizes that do not fit together, a batch that does not divide over the mesh, or a
        stage whose batches differ in shape from one step to another.
      FileNotFoundError: no checkpoint to take sizes from that the experiment does not tell.
    """
    if isinstance(experiment, DatasetJob):
        return {"samples": _sample_program(experiment, mesh)}
    return _step_programs(experiment, mesh)


def _programs(file: pathlib.Path, target: str, mesh: str) -> tuple[dict[str, Program], Mesh]:
    experiment = load_config(file, Training, DatasetJob)
    own = experiment.mesh
    # The experiment's own split, with data parallelism over what the target has beyond it.
    laid = training_mesh(find_target(target), mesh, fsdp=own.fsdp, tensor=own.tensor)
    return experiment_programs(experiment, laid), laid


def _plan_one(file: pathlib.Path, target: str, mesh: str, name: str) -> Plan:
    programs, laid = _programs(file, target, mesh)
    return plan_program(programs[name], find_target(target), laid)


def _step_programs(training: Training, mesh: Mesh) -> dict[str, Program]:
    stage = training.stage(mesh)
    if stage.batch_shapes is None:
        raise ValueError(
            f"The batches of {type(training).__name__} have no one shape; plan another stage."
        )
    for objective in stage.objectives.values():
        for name, leaf in stage.batch_shapes.items():
            # As training checks it: the compiler's message would not name the batch.
            check_division(name, leaf.shape[0], objective, mesh)
    built = build_programs(stage, training, mesh)
    whole = {
        "state": placed_shapes(built.shapes, built.shardings),
        "frozen": _placed(stage.frozen, mesh),
        "batch": placed_shapes(stage.batch_shapes, batch_sharding(mesh)),
    }
    return {
        name: Program(name=name, function=step, arguments=whole)
        for name, step in built.steps.items()
    }


def _sample_program(job: DatasetJob, mesh: Mesh) -> Program:
    program = job.program(mesh)
    arguments = {"networks": _placed(program.networks, mesh), **program.inputs}
    return Program(name="samples", function=jax.jit(program.function), arguments=arguments)


def _placed(weights: Mapping[str, Weights], mesh: Mesh) -> dict[str, Any]:
    return {
        name: placed_shapes(part.shapes, shardings_for(part.shapes, mesh))
        for name, part in weights.items()
    }
