"""Every tensor of a full-size text encoder has one place, and every place one tensor."""

import collections
import json
import pathlib

import jax
import numpy as np
import pytest

from shotstream_jax.checkpoints.names_text import hf_text_names, text_names
from shotstream_jax.checkpoints.naming import to_ours
from shotstream_jax.models.configs import UMT5_XXL
from shotstream_jax.models.text_encoder import init_text_encoder

MANIFEST = pathlib.Path(__file__).parents[1] / "manifests" / "umt5_xxl_encoder.json"
TABLES = pytest.mark.parametrize("names", [text_names, hf_text_names])


@pytest.fixture(scope="module")
def leaves():
    """Shapes of all parameters, by path, without making any."""
    shapes = jax.eval_shape(lambda key: init_text_encoder(key, UMT5_XXL), jax.random.key(0))
    flat, _ = jax.tree_util.tree_flatten_with_path(shapes)
    return {tuple(key.key for key in path): leaf.shape for path, leaf in flat}


def test_the_official_file_is_consumed_exactly():
    manifest = json.loads(MANIFEST.read_text())
    table = text_names(UMT5_XXL)
    assert {name: list(mapping.shape) for name, mapping in table.items()} == manifest


@TABLES
def test_every_leaf_is_filled_exactly_once(names, leaves):
    filled = collections.Counter(
        (mapping.path, mapping.layer) for mapping in names(UMT5_XXL).values()
    )
    wanted = [
        (path, layer)
        for path, shape in leaves.items()
        for layer in (range(shape[0]) if path[0] == "blocks" else (None,))
    ]
    assert filled == collections.Counter(wanted)


@TABLES
def test_layouts_give_the_shapes_of_the_leaves(names, leaves):
    for mapping in names(UMT5_XXL).values():
        ours = to_ours(np.broadcast_to(np.float32(0), mapping.shape), mapping.layout)
        leaf = leaves[mapping.path]
        assert ours.shape == (leaf if mapping.layer is None else leaf[1:])


def test_both_files_fill_the_same_places_alike():
    official, transformers = text_names(UMT5_XXL), hf_text_names(UMT5_XXL)
    assert list(official.values()) == list(transformers.values())


def test_transformers_names_of_the_first_block():
    block = [name for name in hf_text_names(UMT5_XXL) if ".block.0." in name]
    attention, ffn = "encoder.block.0.layer.0.", "encoder.block.0.layer.1."
    assert sorted(block) == sorted(
        [attention + f"SelfAttention.{linear}.weight" for linear in "qkvo"]
        + [attention + "SelfAttention.relative_attention_bias.weight"]
        + [attention + "layer_norm.weight", ffn + "layer_norm.weight"]
        + [ffn + f"DenseReluDense.{linear}.weight" for linear in ("wi_0", "wi_1", "wo")]
    )


def test_the_activated_half_of_the_feed_forward_is_the_gate():
    assert text_names(UMT5_XXL)["blocks.3.ffn.gate.0.weight"].path[-2] == "gate"
    activated = hf_text_names(UMT5_XXL)["encoder.block.3.layer.1.DenseReluDense.wi_0.weight"]
    assert activated.path[-2] == "gate"
    assert activated.layer == 3
