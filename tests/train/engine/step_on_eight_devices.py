"""Trains on one device and on a mesh of eight; prints how far apart they end, and what lies where.

Run by test_step.py in a process of its own, since the number of devices is fixed at start.
"""

import json
import os
import sys

os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.sharding import make_mesh
from shotstream_jax.train.engine.compiled import place_batch
from shotstream_jax.train.engine.optimizer import Objective, OptimizerConfig
from shotstream_jax.train.engine.state import init_state, state_shardings
from shotstream_jax.train.engine.step import jit_step
from shotstream_jax.train.losses import LossAux


def loss(params, inputs):
    noise = jax.vmap(lambda key: jax.random.normal(key, (4,)))(inputs.keys.per_sample)
    hidden = jnp.tanh((inputs.batch["x"] + noise) @ params["up"]["kernel"] + inputs.carry)
    error = jnp.square(hidden @ params["down"]["kernel"] - inputs.networks["fixed"]["q"]["kernel"])
    return error.mean(), LossAux(metrics={}, carry=hidden)


def train(mesh, steps):
    config = OptimizerConfig(learning_rate=0.05, ema=0.9)
    objective = Objective(loss=loss, optimizer=config, accumulate=2)
    up, down = (jax.random.normal(jax.random.key(i), (4, 4)) for i in range(2))
    params = {"net": {"up": {"kernel": up}, "down": {"kernel": down}}}
    frozen = {"fixed": {"q": {"kernel": jnp.eye(4)[0]}}}
    carry = jax.ShapeDtypeStruct((16, 4), jnp.float32)

    def begin(params):
        return init_state(params, {"net": objective}, carry=carry)

    shardings = state_shardings(jax.eval_shape(begin, params), mesh)
    state = jax.jit(begin, out_shardings=shardings)(params)
    where = jax.tree.map(lambda _: jax.NamedSharding(mesh, jax.P()), frozen)
    step = jit_step("net", objective, steps, shardings, where, mesh)
    batch = {"x": np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)}
    for _ in range(steps):
        state, _ = step(state, frozen, place_batch(batch, objective, mesh))
    return params, state


def cuts(array):
    shard = array.addressable_shards[0].data.shape
    return [whole // part for whole, part in zip(array.shape, shard, strict=True)]


def main():
    start, one = train(make_mesh(jax.devices()[:1]), 5)
    _, eight = train(make_mesh(data=2, fsdp=2, tensor=2), 5)
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True)
    walked = zip(jax.tree.leaves(start), jax.tree.leaves(one.params), strict=True)
    adam = next(part for part in eight.opt_state["net"] if hasattr(part, "mu"))
    report = {
        "devices": jax.device_count(),
        "difference": max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs),
        "moved": max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in walked),
        "kernel": cuts(eight.params["net"]["up"]["kernel"]),
        "moment": cuts(adam.mu["up"]["kernel"]),
        "mean": cuts(eight.ema_params["net"]["up"]["kernel"]),
        "carry": cuts(eight.carry),
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
