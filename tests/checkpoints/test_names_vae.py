"""Every tensor of the official files has one place in our tree, and every place one tensor."""

import collections
import json
import pathlib

import jax
import numpy as np
import pytest

from shotstream_jax.checkpoints.names_vae import diffusers_vae_names, vae_names
from shotstream_jax.checkpoints.naming import to_official, to_ours
from shotstream_jax.models.configs import WAN_VAE, VAEConfig
from shotstream_jax.models.vae import init_vae

MANIFESTS = pathlib.Path(__file__).parents[1] / "manifests"
MINIATURE = VAEConfig(
    base_channels=4,
    latent_channels=3,
    multipliers=(1, 3, 2),
    residual_blocks=1,
    temporal_downsample=(True, False),
    latent_mean=(0.0,) * 3,
    latent_std=(1.0,) * 3,
)
TABLES = pytest.mark.parametrize("names", [vae_names, diffusers_vae_names])


@pytest.mark.parametrize(
    ("names", "manifest"), [(vae_names, "wan2_1_vae"), (diffusers_vae_names, "diffusers_wan_vae")]
)
def test_names_and_shapes_are_those_of_the_published_file(names, manifest):
    published = json.loads((MANIFESTS / f"{manifest}.json").read_text())
    ours = {name: list(mapping.shape) for name, mapping in names(WAN_VAE).items()}
    assert ours == published


@TABLES
@pytest.mark.parametrize("config", [WAN_VAE, MINIATURE], ids=["wan", "miniature"])
def test_each_parameter_is_filled_once_and_fits(names, config):
    params = jax.eval_shape(lambda: init_vae(jax.random.key(0), config))
    leaves = {
        tuple(entry.key for entry in path): leaf.shape
        for path, leaf in jax.tree.leaves_with_path(params)
    }
    mappings = names(config).values()
    assert collections.Counter(mapping.path for mapping in mappings) == dict.fromkeys(leaves, 1)
    for mapping in mappings:
        official = np.broadcast_to(np.float32(0), mapping.shape)
        assert to_ours(official, mapping.layout).shape == leaves[mapping.path], mapping


@TABLES
def test_there_and_back_is_the_same_array(names):
    rng = np.random.default_rng(0)
    for mapping in names(MINIATURE).values():
        official = rng.standard_normal(mapping.shape)
        again = to_official(to_ours(official, mapping.layout), mapping.layout, mapping.shape)
        np.testing.assert_array_equal(again, official)


def test_both_files_fill_the_same_places():
    official, diffusers = vae_names(WAN_VAE), diffusers_vae_names(WAN_VAE)
    assert set(official.values()) == set(diffusers.values())
    assert (
        official["decoder.upsamples.4.shortcut.weight"]
        == (diffusers["decoder.up_blocks.1.resnets.0.conv_shortcut.weight"])
    )
