"""Formats are recognised by their keys, and sizes read off shapes."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from shotstream_jax.checkpoints.formats import (
    OFFICIAL_FORMATS,
    WEIGHT_FORMATS,
    without_copies,
)
from shotstream_jax.checkpoints.network_search import find_network
from shotstream_jax.checkpoints.tensors import LazyArray
from shotstream_jax.models.configs import UMT5_XXL, WAN_1_3B, WAN_14B, WAN_VAE

MANIFESTS = pathlib.Path(__file__).parents[1] / "manifests"
PUBLISHED = {
    "wan2_1_t2v_1_3b": ("Wan2.1 transformer", WAN_1_3B),
    "wan2_1_t2v_14b": ("Wan2.1 transformer", WAN_14B),
    "diffusers_wan_1_3b": ("diffusers transformer", WAN_1_3B),
    "wan2_1_vae": ("Wan2.1 autoencoder", WAN_VAE),
    "diffusers_wan_vae": ("diffusers autoencoder", WAN_VAE),
    "umt5_xxl_encoder": ("Wan2.1 text encoder", UMT5_XXL),
}
WAN_DIT_FORMAT = OFFICIAL_FORMATS["dit"]


def unread(shape: tuple[int, ...]) -> LazyArray:
    """A tensor that must not be read."""

    def read() -> np.ndarray:
        raise AssertionError("read")

    return LazyArray(shape, np.dtype(np.float32), read)


def published(manifest: str) -> dict[str, tuple[int, ...]]:
    content = json.loads((MANIFESTS / f"{manifest}.json").read_text())
    return {name: tuple(shape) for name, shape in content.items()}


def sizes_of(shapes, format_, settings=None) -> Any:
    return format_.sizes(shapes, format_.signature_keys, settings or {})


@pytest.mark.parametrize("manifest", PUBLISHED)
def test_published_files_are_recognised_and_measured(manifest):
    shapes = published(manifest)
    format_ = find_network({name: unread(shape) for name, shape in shapes.items()}, manifest).format
    assert (format_.name, sizes_of(shapes, format_)) == PUBLISHED[manifest]


@pytest.mark.parametrize("format_", WEIGHT_FORMATS, ids=lambda f: f.name)
def test_small_networks_are_measured_in_every_format(format_, sizes):
    config = sizes[format_.network]
    shapes = {name: mapping.shape for name, mapping in format_.names(config).items()}
    settings = {"num_heads": 2, "text_len": 7, "latents_mean": [0.5, -0.5], "latents_std": [1, 2]}
    tensors = {name: unread(shape) for name, shape in shapes.items()}
    assert find_network(tensors, "x").format is format_
    assert sizes_of(shapes, format_, settings) == config


def test_a_file_that_lacks_a_landmark_is_still_recognised():
    shapes = published("wan2_1_t2v_1_3b")
    del shapes["text_embedding.0.weight"]
    tensors = {name: unread(shape) for name, shape in shapes.items()}
    assert find_network(tensors, "x").format is WAN_DIT_FORMAT
    with pytest.raises(ValueError, match=r"no tensor text_embedding\.0\.weight"):
        sizes_of(shapes, WAN_DIT_FORMAT)


def test_unknown_networks_are_refused_with_some_of_their_keys():
    with pytest.raises(
        ValueError, match=r"film\.pt holds none .*4 tensors, .*: a, b, c and 1 more\)"
    ):
        find_network({name: unread((1,)) for name in "abcd"}, "film.pt")


def test_landmarks_of_other_shapes_are_refused():
    shapes = published("wan2_1_t2v_1_3b") | {"patch_embedding.weight": (1536, 64)}
    with pytest.raises(ValueError, match=r"patch_embedding\.weight has shape \(1536, 64\), and 5"):
        sizes_of(shapes, WAN_DIT_FORMAT)
    shapes = published("wan2_1_vae")
    del shapes["encoder.downsamples.0.residual.2.weight"]
    with pytest.raises(ValueError, match=r"no tensor encoder\.downsamples\.0\.residual\.2\.weight"):
        sizes_of(shapes, OFFICIAL_FORMATS["vae"])


def test_a_layer_that_is_missing_in_between_is_counted():
    shapes = published("wan2_1_t2v_1_3b")
    del shapes["blocks.3.modulation"]
    assert sizes_of(shapes, WAN_DIT_FORMAT).layers == WAN_1_3B.layers


@pytest.mark.parametrize(
    ("settings", "heads"),
    [
        ({}, 12),
        ({"num_heads": 24}, 24),
        ({"num_heads": 24, "dim": 1536}, 24),
        ({"num_heads": 40, "dim": 5120}, 12),
        ({"num_attention_heads": 24, "attention_head_dim": 64}, 24),
        ({"num_attention_heads": 40, "attention_head_dim": 128}, 12),
    ],
)
def test_heads_come_from_settings_of_the_same_width_or_the_official_size(settings, heads):
    assert sizes_of(published("wan2_1_t2v_1_3b"), WAN_DIT_FORMAT, settings).heads == heads


def test_heads_that_nothing_tells_are_asked_for(sizes):
    shapes = {name: mapping.shape for name, mapping in WAN_DIT_FORMAT.names(sizes["dit"]).items()}
    with pytest.raises(ValueError, match=r"Width 16 .* 128; put the config\.json"):
        sizes_of(shapes, WAN_DIT_FORMAT)


@pytest.mark.parametrize("wrong", [[1.0, "2"], 3.0, "mean"])
def test_statistics_that_are_no_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match=r"config\.json has latents_mean"):
        sizes_of(published("wan2_1_vae"), OFFICIAL_FORMATS["vae"], {"latents_mean": wrong})


@pytest.mark.parametrize("wrong", ["12", 0, -1, 1.5])
def test_settings_that_are_no_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"config\.json has num_heads"):
        sizes_of(published("wan2_1_t2v_1_3b"), WAN_DIT_FORMAT, {"num_heads": wrong})


def test_second_copies_are_dropped_and_take_the_place_of_a_missing_original(sizes):
    format_ = next(f for f in WEIGHT_FORMATS if f.copies)
    (copy, original), *_ = format_.copies.items()
    table = format_.names(sizes["text"])
    once = {name: unread(mapping.shape) for name, mapping in table.items()}
    assert without_copies(format_, once | {copy: once[original]}).keys() == once.keys()
    moved = {name: tensor for name, tensor in once.items() if name != original}
    renamed = without_copies(format_, moved | {copy: once[original]})
    assert renamed.keys() == once.keys()
    assert renamed[original] is once[original]
