"""Every tensor of a full-size transformer has one place, and every place one tensor."""

import collections
import json
import pathlib

import jax
import numpy as np
import pytest

from shotstream_jax.checkpoints.names_dit import diffusers_dit_names, dit_names
from shotstream_jax.checkpoints.naming import Layout, TensorMapping, to_ours
from shotstream_jax.models.configs import WAN_1_3B, WAN_14B
from shotstream_jax.models.dit import init_dit

MANIFESTS = pathlib.Path(__file__).parents[1] / "manifests"
TABLES = pytest.mark.parametrize("names", [dit_names, diffusers_dit_names])
SIZES = pytest.mark.parametrize("config", [WAN_1_3B, WAN_14B], ids=["1.3B", "14B"])


@pytest.mark.parametrize(
    ("table", "manifest"),
    [
        (dit_names(WAN_1_3B), "wan2_1_t2v_1_3b"),
        (dit_names(WAN_14B), "wan2_1_t2v_14b"),
        (diffusers_dit_names(WAN_1_3B), "diffusers_wan_1_3b"),
    ],
    ids=["1.3B", "14B", "diffusers"],
)
def test_names_and_shapes_are_those_of_the_published_file(table, manifest):
    published = json.loads((MANIFESTS / f"{manifest}.json").read_text())
    assert {name: list(mapping.shape) for name, mapping in table.items()} == published


@SIZES
@TABLES
def test_each_parameter_is_filled_once_and_fits(names, config):
    shapes = jax.eval_shape(lambda key: init_dit(key, config), jax.random.key(0))
    leaves = {
        tuple(entry.key for entry in path): leaf.shape
        for path, leaf in jax.tree.leaves_with_path(shapes)
    }
    wanted = [
        (path, layer)
        for path, shape in leaves.items()
        for layer in (range(shape[0]) if path[0] == "blocks" else (None,))
    ]
    mappings = names(config).values()
    assert collections.Counter(
        (mapping.path, mapping.layer) for mapping in mappings
    ) == dict.fromkeys(wanted, 1)
    for mapping in mappings:
        ours = to_ours(np.broadcast_to(np.int8(0), mapping.shape), mapping.layout).shape
        leaf = leaves[mapping.path]
        assert ours == (leaf if mapping.layer is None else leaf[1:]), mapping


def test_both_layouts_fill_the_same_places_alike():
    official, diffusers = dit_names(WAN_1_3B), diffusers_dit_names(WAN_1_3B)
    assert list(official.values()) == list(diffusers.values())


def test_some_places_that_shapes_could_not_tell_apart():
    official = dit_names(WAN_1_3B)
    assert official["blocks.7.cross_attn.k.weight"] == TensorMapping(
        ("blocks", "cross_attention", "k", "kernel"), Layout.LINEAR, (1536, 1536), 7
    )
    assert official["blocks.0.norm3.bias"].path == ("blocks", "cross_norm", "bias")
    assert official["time_embedding.2.weight"].path == ("time_out", "kernel")
    diffusers = diffusers_dit_names(WAN_1_3B)
    assert diffusers["blocks.7.attn2.to_k.weight"] == official["blocks.7.cross_attn.k.weight"]
    assert diffusers["blocks.7.attn1.to_out.0.bias"] == official["blocks.7.self_attn.o.bias"]
    assert diffusers["blocks.0.norm2.weight"] == official["blocks.0.norm3.weight"]
    time = "condition_embedder.time_embedder.linear_2.weight"
    assert diffusers[time] == official["time_embedding.2.weight"]
