import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from shotstream_jax.models.configs import WAN_1_3B
from shotstream_jax.models.dit import init_dit
from shotstream_jax.sharding import film_mesh, make_mesh, shardings_for, split_devices

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "rollout" / "film_on_eight_devices.py"


@pytest.mark.parametrize(
    "pieces",
    [
        {"heads and weights": 8, "autoencoder apart": 4},
        pytest.param({"heads": 8}, marks=pytest.mark.slow),
    ],
    ids=",".join,
)
def test_one_device_equals_eight(pieces):
    # The compiler is told to hurry: each mesh has a dozen programs of its own.
    flag = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    run = subprocess.run(
        [sys.executable, SCRIPT, *pieces],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flag},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    results = [json.loads(line) for line in run.stdout.splitlines()]
    assert {result["mesh"]: result["pieces"] for result in results} == pieces
    assert all(result["error"] < 1e-4 for result in results)


def test_an_autoencoder_apart_needs_two_devices():
    with pytest.raises(ValueError, match="needs a device of its own and there is one"):
        split_devices(4, jax.devices()[:1], vae_apart=True)


def spec_of(name, shape):
    """The partition of one parameter on a mesh whose axes divide everything."""
    tree = jnp.zeros(shape)
    for key in reversed(name.split("/")):
        tree = {key: tree}
    return jax.tree.leaves(shardings_for(tree, make_mesh(jax.devices()[:1])))[0].spec


@pytest.mark.parametrize(
    ("name", "shape", "spec"),
    [
        ("blocks/self_attention/q/kernel", (2, 8, 8), (None, "fsdp", "tensor")),
        ("blocks/cross_attention/o/kernel", (2, 8, 8), (None, "tensor", "fsdp")),
        ("blocks/ffn/up/bias", (2, 8), (None, "tensor")),
        ("blocks/self_attention/norm_q/scale", (2, 8), (None, "tensor")),
        ("blocks/modulation", (2, 6, 8), (None, None, None)),
        ("patch_embedding/kernel", (8, 8), ("fsdp", None)),
        ("head/bias", (8,), (None,)),
    ],
)
def test_rules_place_parameters_by_path(name, shape, spec):
    assert spec_of(name, shape) == PartitionSpec(*spec)


def test_every_matrix_of_the_network_has_a_rule():
    shapes = jax.eval_shape(lambda key: init_dit(key, WAN_1_3B), jax.random.key(0))
    placed = shardings_for(shapes, make_mesh(jax.devices()[:1]))
    whole = [
        jax.tree_util.keystr(path)
        for path, sharding in jax.tree_util.tree_leaves_with_path(placed)
        if not any(sharding.spec) and "kernel" in jax.tree_util.keystr(path)
    ]
    assert whole == []


def test_a_film_takes_as_many_devices_as_divide_the_heads():
    assert film_mesh(12, jax.devices()[:1]).shape["tensor"] == 1


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"tensor": 3}, "tensor=3 has 3 places for 1 devices"), ({"heads": 1}, "'heads' is unknown")],
)
def test_meshes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(jax.devices()[:1], **sizes)
