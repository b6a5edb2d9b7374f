"""Programs of a stage are made from shapes; what does not fit together is said before compiling."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.checkpoints.manager import save_checkpoint
from shotstream_jax.model_config import CheckpointConfig
from shotstream_jax.models.configs import VAEConfig
from shotstream_jax.models.vae import init_vae
from shotstream_jax.sharding import make_mesh
from shotstream_jax.train.engine.compiled import build_programs, mesh_of, place_batch
from shotstream_jax.train.engine.optimizer import Objective, OptimizerConfig
from shotstream_jax.train.engine.stage import MeshConfig, random_weights
from shotstream_jax.train.engine.weights import network_weights
from tests.train.engine.toy_training import toy

VAE = VAEConfig(
    base_channels=2,
    latent_channels=2,
    multipliers=(1,),
    residual_blocks=1,
    temporal_downsample=(),
    latent_mean=(0.0,) * 2,
    latent_std=(1.0,) * 2,
)


def test_a_step_is_lowered_without_weights(tmp_path):
    def never(shardings):
        raise AssertionError("weights were loaded")

    training = toy(tmp_path)
    mesh = mesh_of(training.mesh)
    stage = training.stage(mesh)
    weights = {name: dataclasses.replace(w, load=never) for name, w in stage.weights.items()}
    programs = build_programs(dataclasses.replace(stage, weights=weights), training, mesh)
    frozen = {name: w.shapes for name, w in stage.frozen.items()}
    batch = {
        "x": jax.ShapeDtypeStruct((4, 3), jnp.float32),
        "place": jax.ShapeDtypeStruct((4,), jnp.int32),
    }
    lowered = programs.steps["hare"].lower(programs.shapes, frozen, batch)
    state, metrics = lowered.out_info
    assert state.step.shape == ()
    assert set(metrics) >= {"hare/loss", "hare/grad_norm", "skipped_in_row"}


def test_every_network_that_learns_has_an_objective(tmp_path):
    training = toy(tmp_path)
    mesh = mesh_of(training.mesh)
    stage = training.stage(mesh)
    lacking = dataclasses.replace(stage, objectives={"hare": stage.objectives["hare"]})
    with pytest.raises(ValueError, match="objectives for hare and weights of hare, hound"):
        build_programs(lacking, training, mesh)


def test_a_batch_divides_among_pieces():
    objective = Objective(
        loss=lambda *args: None, optimizer=OptimizerConfig(learning_rate=1.0), accumulate=4
    )
    with pytest.raises(ValueError, match=r"batch of 6 x does not divide among 1 devices .* and 4"):
        place_batch({"x": np.zeros((6, 2))}, objective, make_mesh(jax.devices()[:1]))


def test_data_takes_the_devices_that_are_left():
    assert mesh_of(MeshConfig()).shape["data"] == jax.device_count()
    with pytest.raises(ValueError, match="places for"):
        mesh_of(MeshConfig(data=1, fsdp=jax.device_count() + 1))


def test_weights_are_drawn_or_read_where_they_are_wanted(tmp_path):
    def init(key):
        return init_vae(key, VAE)

    drawn = random_weights(init, seed=3)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params = drawn.load(jax.tree.map(lambda _: here, drawn.shapes))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    config = CheckpointConfig(networks={"vae": VAE}, weights="trained")
    save_checkpoint(tmp_path / "stored", {"vae": half}, config)
    stored = network_weights(tmp_path / "stored", "vae", VAE)
    assert stored.shapes == drawn.shapes
    read = stored.load(jax.tree.map(lambda _: here, stored.shapes))
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(read), strict=True):
        assert b.dtype == jnp.float32
        np.testing.assert_array_equal(a.astype(jnp.float32), b)


# Two of the seven in the gate: a stage with all three networks, and a dataset whose shard does not
# divide among the devices. The others take minutes to compile.
@pytest.mark.parametrize(
    "names",
    [
        ("dmd_intra", "pairs"),
        pytest.param(
            ("base", "teacher", "causal_init", "dmd_inter", "latents"), marks=pytest.mark.slow
        ),
    ],
    ids=",".join,
)
def test_eight_devices_train_a_stage_as_one_does(names):
    root = pathlib.Path(__file__).parents[3]
    script = pathlib.Path(__file__).with_name("stages_on_eight_devices.py")
    done = subprocess.run(
        [sys.executable, script, *names],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["devices"] == 8
    assert report["stages"].keys() == set(names)
    for name, stage in report["stages"].items():
        assert stage["difference"] < 1e-5, name
        assert stage["moved"] > 1e-4, name
