"""Checkpoint folders: written whole or not at all, loaded onto any mesh, refused when damaged."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.checkpoints import manager
from shotstream_jax.checkpoints.manager import (
    creating_checkpoint,
    load_network,
    network_shapes,
    read_config,
    save_checkpoint,
    stored_leaves,
    write_network,
)
from shotstream_jax.checkpoints.names_dit import dit_names
from shotstream_jax.checkpoints.names_vae import vae_names
from shotstream_jax.checkpoints.param_trees import build_params, leaves_of
from shotstream_jax.model_config import CheckpointConfig, RolloutConfig


@pytest.fixture
def networks(random_tensors, sizes):
    tables = {"dit": dit_names(sizes["dit"]), "vae": vae_names(sizes["vae"])}
    return {name: build_params(table, random_tensors(table)) for name, table in tables.items()}


@pytest.fixture
def config(networks, sizes):
    return CheckpointConfig(
        networks={name: sizes[name] for name in networks},
        rollout=RolloutConfig(steps=(1000, 500)),
        weights="random",
        source={"dit": {"files": ["a.pt"]}},
    )


@pytest.fixture
def checkpoint(tmp_path, networks, config):
    tokenizer = tmp_path / "tokens.json"
    tokenizer.write_text('{"model": {}}')
    save_checkpoint(tmp_path / "film", networks, config, tokenizer)
    return tmp_path / "film"


def test_networks_come_back_as_they_were(checkpoint, networks):
    for name, params in networks.items():
        jax.tree.map(np.testing.assert_array_equal, load_network(checkpoint, name), params)


def test_arrays_on_devices_are_saved_alike(tmp_path, networks, config):
    on_devices = jax.tree.map(jnp.asarray, networks)
    save_checkpoint(tmp_path / "film", on_devices, config)
    loaded = load_network(tmp_path / "film", "dit")
    jax.tree.map(np.testing.assert_array_equal, loaded, networks["dit"])
    assert not (tmp_path / "film" / "tokenizer").exists()


def test_nothing_tells_where_it_was_written(checkpoint, tmp_path):
    files = [file for file in checkpoint.rglob("*") if file.is_file()]
    assert len(files) > 5
    assert not [file for file in files if str(tmp_path).encode() in file.read_bytes()]


def test_config_and_tokenizer_come_along(checkpoint, config, sizes):
    assert read_config(checkpoint) == config
    assert json.loads((checkpoint / "config.json").read_text())["format"] == "shotstream_jax"
    assert config.network("vae") == sizes["vae"]
    assert (checkpoint / "tokenizer" / "tokenizer.json").read_text() == '{"model": {}}'


@pytest.mark.parametrize("dtype", [jnp.bfloat16, "float16"])
def test_dtypes_are_cast_while_loading(checkpoint, networks, dtype):
    loaded = load_network(checkpoint, "dit", dtype=dtype)
    expected = jax.tree.map(lambda leaf: leaf.astype(jnp.dtype(dtype)), networks["dit"])
    jax.tree.map(np.testing.assert_array_equal, loaded, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {jnp.dtype(dtype)}


def test_bfloat16_is_kept(tmp_path, networks, config):
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), networks)
    save_checkpoint(tmp_path / "film", narrow, config)
    loaded = load_network(tmp_path / "film", "vae")
    jax.tree.map(np.testing.assert_array_equal, loaded, narrow["vae"])
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {jnp.dtype(jnp.bfloat16)}


SHARDED = """
import pathlib, sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from shotstream_jax.checkpoints.manager import load_network
folder = pathlib.Path(sys.argv[1])
assert len(jax.devices()) == 4
mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("fsdp", "tensor"))
whole = load_network(folder, "dit")
everywhere = NamedSharding(mesh, PartitionSpec())
shardings = {name: everywhere for name in whole}
split = NamedSharding(mesh, PartitionSpec(None, "fsdp", "tensor"))
shardings["blocks"] = jax.tree.map(lambda x: split if x.ndim == 3 else everywhere, whole["blocks"])
loaded = load_network(folder, "dit", dtype="bfloat16", shardings=shardings)
kernel = loaded["blocks"]["ffn"]["up"]["kernel"]
assert kernel.sharding == split and kernel.dtype == "bfloat16"
assert {s.data.shape for s in kernel.addressable_shards} == {(3, 8, 12)}
assert loaded["head"]["kernel"].sharding == everywhere
assert len(whole["head"]["kernel"].sharding.device_set) == 1
same = jax.tree.map(lambda a, b: np.array_equal(a.astype(b.dtype), b), whole, loaded)
assert jax.tree.all(same)
one = load_network(folder, "dit", shardings=everywhere)
assert all(leaf.sharding == everywhere for leaf in jax.tree.leaves(one))
"""


def test_each_device_of_a_mesh_gets_its_part(checkpoint):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    command = [sys.executable, "-c", SHARDED, str(checkpoint)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_leaves_are_read_to_the_host_one_by_one(checkpoint, networks):
    leaves, expected = stored_leaves(checkpoint, "dit"), leaves_of(networks["dit"])
    assert leaves.keys() == expected.keys()
    for path, leaf in leaves.items():
        values = np.asarray(leaf)
        assert (leaf.shape, leaf.dtype) == (values.shape, values.dtype)
        np.testing.assert_array_equal(values, expected[path])


def test_layers_of_large_networks_are_stored_apart(tmp_path, networks, config, sizes, monkeypatch):
    monkeypatch.setattr(manager, "_DATABASE_BYTES", 0)
    save_checkpoint(tmp_path / "large", networks, config)
    kernel = tmp_path / "large" / "dit" / "blocks.ffn.up.kernel"
    assert len([p for p in kernel.iterdir() if p.name[0] != "."]) == sizes["dit"].layers
    loaded = load_network(tmp_path / "large", "dit")
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(networks["dit"]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_small_networks_are_a_few_files(checkpoint, networks):
    files = [path for path in (checkpoint / "dit").rglob("*") if path.is_file()]
    assert len(files) < len(jax.tree.leaves(networks["dit"]))


def test_a_write_that_fails_leaves_nothing(tmp_path, networks, config):
    def interrupted() -> None:
        with creating_checkpoint(tmp_path / "film", config) as partial:
            write_network(partial, "dit", networks["dit"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_not_overwritten(checkpoint, networks, config):
    with pytest.raises(FileExistsError, match="film exists already"):
        save_checkpoint(checkpoint, networks, config)
    assert load_network(checkpoint, "vae")


def test_networks_and_config_must_agree(tmp_path, networks, config):
    with pytest.raises(ValueError, match=r"describes networks dit, vae and dit were written"):
        save_checkpoint(tmp_path / "film", {"dit": networks["dit"]}, config)
    assert list(tmp_path.iterdir()) == []


def biggest(folder: pathlib.Path) -> pathlib.Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("load", [load_network, stored_leaves])
@pytest.mark.parametrize(
    ("damage", "message"),
    [(flip, "it is damaged"), (cut, "bytes where"), (pathlib.Path.unlink, "is missing")],
    ids=["flipped", "cut", "deleted"],
)
def test_damaged_networks_are_refused_by_file_and_the_others_load(
    checkpoint, load, damage, message
):
    victim = biggest(checkpoint / "dit")
    damage(victim)
    with pytest.raises(ValueError, match=message) as caught:
        load(checkpoint, "dit")
    assert str(victim) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert load(checkpoint, "vae")


def test_shapes_are_known_without_loading(checkpoint, networks):
    shapes = network_shapes(checkpoint, "dit")
    found = jax.tree.map(lambda leaf: (tuple(leaf.shape), np.dtype(leaf.dtype)), shapes)
    assert found == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), networks["dit"])
    flip(checkpoint / "dit" / "_METADATA")
    with pytest.raises(ValueError, match=r"_METADATA .* it is damaged"):
        network_shapes(checkpoint, "dit")


def test_a_damaged_list_of_files_is_refused(checkpoint):
    listed = checkpoint / "files.json"
    listed.write_text(listed.read_text()[:-10])
    with pytest.raises(ValueError, match=r"files\.json cannot be read"):
        load_network(checkpoint, "dit")
    listed.write_text("{}")
    with pytest.raises(ValueError, match=r"files\.json lists no file of config\.json"):
        load_network(checkpoint, "dit")
    listed.unlink()
    with pytest.raises(ValueError, match=r"files\.json cannot be read"):
        load_network(checkpoint, "dit")


def test_networks_that_are_not_there_are_named(checkpoint):
    with pytest.raises(ValueError, match=r"holds dit, vae and no text; .*--wan"):
        load_network(checkpoint, "text")
    with pytest.raises(ValueError, match=r"holds dit, vae and no text"):
        read_config(checkpoint).network("text")


def test_unknown_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist"):
        load_network(tmp_path / "nowhere", "dit")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "another program's"),
        ({"version": 2}, "version 2 and 1 is read"),
        ({"networks": []}, "does not describe networks"),
    ],
)
def test_other_configs_are_refused(checkpoint, change, message):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        load_network(checkpoint, "dit")


def test_damaged_configs_are_refused(checkpoint):
    path = checkpoint / "config.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        read_config(checkpoint)


def test_sizes_of_a_newer_network_are_refused(checkpoint):
    path = checkpoint / "config.json"
    document = json.loads(path.read_text())
    document["networks"]["dit"]["experts"] = 2
    path.write_text(json.dumps(document))
    message = r"config\.json: networks\.dit has a field \"experts\" that is not known"
    with pytest.raises(ValueError, match=message):
        load_network(checkpoint, "dit")
