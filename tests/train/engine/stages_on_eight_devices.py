"""One step of every network of a stage, or a shard of a dataset, on one device and on eight.

The mesh is data 2 x fsdp 2 x tensor 2; prints how far apart they end, and how far they walked.

    python stages_on_eight_devices.py teacher pairs

Run by test_compiled.py in a process of its own, since the number of devices is fixed at start.
"""

import json
import os
import pathlib
import sys
from collections.abc import Sequence

os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from shotstream_jax.sharding import make_mesh, shardings_for
from shotstream_jax.train.engine.compiled import Programs, build_programs
from shotstream_jax.train.engine.dataset_job import DatasetJob
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.engine.stage import Stage, Training
from shotstream_jax.train.engine.state import init_state
from tests.train import miniature

BATCH = 4
# Plain gradients: AdamW would blow rounding errors of what is nearly zero up to whole steps.
PLAIN = OptimizerConfig(learning_rate=1.0, b1=0.0, eps=1.0, clip=None)
ROOT = pathlib.Path("nowhere")


def stages() -> dict[str, Training]:
    how = {"batch": BATCH, "optimizer": PLAIN}
    both = {**how, "critic_optimizer": PLAIN}
    return {
        "base": miniature.base(ROOT, **how),
        "teacher": miniature.teacher(ROOT, trainable="all", **how),
        "causal_init": miniature.causal_init(ROOT, **how),
        "dmd_intra": miniature.intra(ROOT, **both),
        "dmd_inter": miniature.inter(ROOT, **both),
    }


def datasets() -> dict[str, DatasetJob]:
    return {
        "latents": miniature.latents(ROOT, shard=BATCH),
        # Three do not divide: every device makes them all.
        "pairs": miniature.pairs(ROOT, negative="blurred", shard=3),
    }


def draw(shapes, seed: int):
    """Small random numbers in place of weights."""
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return tree.unflatten(
        [0.2 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )


def draw_inputs(shapes):
    rng = np.random.default_rng(0)

    def one(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if leaf.dtype == np.uint8:
            return rng.integers(0, 256, leaf.shape, np.uint8)
        if np.issubdtype(leaf.dtype, np.floating):
            return rng.normal(size=leaf.shape).astype(np.float32)
        return np.ones(leaf.shape, leaf.dtype)

    return jax.tree.map(one, shapes)


def train(stage: Stage, programs: Programs) -> tuple[dict, dict]:
    """Where the networks started, and where one step of each took them."""
    start = {name: draw(weights.shapes, 1) for name, weights in stage.weights.items()}
    frozen = {name: draw(weights.shapes, 2) for name, weights in stage.frozen.items()}
    frozen = jax.device_put(frozen, shardings_for(frozen, programs.mesh))
    begin = jax.jit(
        lambda params: init_state(params, stage.objectives, carry=stage.carry),
        out_shardings=programs.shardings,
    )
    state = begin(start)
    batch = draw_inputs(stage.batch_shapes)
    for step in programs.steps.values():
        state, _ = step(state, frozen, batch)
    return start, {"params": state.params, "carry": state.carry}


def make(job: DatasetJob, mesh: Mesh):
    """What a shard holds."""
    program = job.program(mesh)
    drawn = {name: draw(weights.shapes, 1) for name, weights in program.networks.items()}
    networks = jax.device_put(drawn, shardings_for(drawn, mesh))
    places = jax.tree.map(lambda leaf: leaf.sharding, program.inputs)
    inputs = jax.device_put(draw_inputs(program.inputs), places)
    return jax.jit(program.function)(networks, *inputs.values())


def farthest(one, other) -> float:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


def main(names: Sequence[str]) -> None:
    report = {}
    meshes = make_mesh(jax.devices()[:1]), make_mesh(data=2, fsdp=2, tensor=2)
    for name, training in stages().items():
        if name not in names:
            continue
        stages_on = [(training.stage(mesh), mesh) for mesh in meshes]
        (start, one), (_, eight) = (
            train(stage, build_programs(stage, training, mesh)) for stage, mesh in stages_on
        )
        largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(one))
        report[name] = {
            "difference": farthest(one, eight) / largest,
            "moved": farthest(start, one["params"]),
        }
    for name, job in datasets().items():
        if name not in names:
            continue
        one, eight = (make(job, mesh) for mesh in meshes)
        largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(one))
        report[name] = {"difference": farthest(one, eight) / largest, "moved": largest}
    sys.stdout.write(json.dumps({"devices": jax.device_count(), "stages": report}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
