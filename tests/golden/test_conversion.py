"""Files that the public implementation wrote are converted, merged and given back unchanged."""

import json
import pathlib
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest

from shotstream_jax.checkpoints.lora_source import LoRARequest
from shotstream_jax.checkpoints.manager import load_network, read_config
from shotstream_jax.checkpoints.official import export_official, import_source
from shotstream_jax.checkpoints.torch_weights import open_weights
from shotstream_jax.checkpoints.weight_sources import find_source, with_loras

RELEASE = "shotstream_tiny.pt"
TRANSFORMER, VAE = "dit.safetensors", "Wan2.1_VAE.pth"


@pytest.fixture(scope="module")
def encoder(golden) -> pathlib.Path:
    return next(golden.folder.glob("models_t5_*.pth"))


@pytest.fixture(scope="module")
def wan(golden, encoder, tmp_path_factory) -> pathlib.Path:
    """The recordings, laid out as the published Wan2.1 folder."""
    folder = tmp_path_factory.mktemp("wan")
    weights = folder / "diffusion_pytorch_model.safetensors"
    shutil.copyfile(golden.path(TRANSFORMER), weights)
    shutil.copyfile(golden.path(VAE), folder / VAE)
    shutil.copyfile(encoder, folder / encoder.name)
    (folder / "config.json").write_text(json.dumps(golden.sizes("dit")))
    (folder / "google" / "umt5-xxl").mkdir(parents=True)
    (folder / "google" / "umt5-xxl" / "tokenizer.json").write_text('{"model": {}}')
    return folder


@pytest.fixture(scope="module")
def checkpoint(golden, wan, tmp_path_factory) -> pathlib.Path:
    """The recorded release, converted with its base."""
    folder = tmp_path_factory.mktemp("converted") / "film"
    import_source(find_source(golden.path(RELEASE), base=wan), folder)
    return folder


def assert_same(found, expected) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


def test_the_release_holds_the_transformer_under_wrapped_names(golden):
    release = open_weights(golden.path(RELEASE), section="generator")
    bare = open_weights(golden.path(TRANSFORMER))
    assert_same(release, {f"model.{name}": tensor for name, tensor in bare.items()})


def test_the_official_encoder_is_the_other_one_rounded(golden, encoder):
    rounded, exact = open_weights(encoder), open_weights(golden.path("umt5.safetensors"))
    assert rounded.keys() == exact.keys()
    for name, tensor in exact.items():
        expected = np.asarray(tensor).astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(rounded[name], expected)


def test_sizes_are_those_that_were_recorded(golden, checkpoint):
    config = read_config(checkpoint)
    dit, recorded = config.network("dit"), golden.sizes("dit")
    assert (dit.dim, dit.layers, dit.heads) == tuple(
        recorded[key] for key in ("dim", "num_layers", "num_heads")
    )
    vae, recorded = config.network("vae"), golden.sizes("vae")
    assert (vae.base_channels, vae.latent_channels, vae.residual_blocks) == tuple(
        recorded[key] for key in ("dim", "z_dim", "num_res_blocks")
    )
    assert list(vae.multipliers) == recorded["dim_mult"]
    assert list(vae.temporal_downsample) == recorded["temporal_downsample"]
    text, recorded = config.network("text"), golden.sizes("umt5")
    assert (text.vocab, text.dim, text.attention_dim, text.ffn_dim) == tuple(
        recorded[key] for key in ("vocab", "dim", "dim_attn", "dim_ffn")
    )
    assert (text.heads, text.layers, text.buckets) == tuple(
        recorded[key] for key in ("num_heads", "num_layers", "num_buckets")
    )


def test_the_release_comes_back_as_it_was(golden, checkpoint, tmp_path):
    export_official(checkpoint, tmp_path / "back.pt")
    assert_same(open_weights(tmp_path / "back.pt"), open_weights(golden.path(RELEASE)))


@pytest.mark.parametrize("network", ["vae", "text"])
def test_the_other_networks_come_back_as_they_were(golden, encoder, checkpoint, tmp_path, network):
    export_official(checkpoint, tmp_path / "back.pth", network=network)
    official = encoder if network == "text" else golden.path(VAE)
    assert_same(open_weights(tmp_path / "back.pth"), open_weights(official))


def test_a_converted_transformer_is_the_recorded_one(checkpoint, dit_params):
    loaded = load_network(checkpoint, "dit")
    jax.tree.map(np.testing.assert_array_equal, loaded, dit_params)


@pytest.mark.parametrize("keep", [False, True], ids=["merged", "kept"])
def test_lora_weights_merge_as_recorded(golden, wan, tmp_path, agree, keep):
    recorded = golden.arrays("lora_golden")
    source = find_source(golden.path(RELEASE), base=wan)
    adapted = with_loras(
        source,
        [LoRARequest(golden.path("lora_tiny.pt"))],
        alpha=float(recorded["alpha"]),
        keep=keep,
    )
    import_source(adapted, tmp_path / "film")
    export_official(tmp_path / "film", tmp_path / "merged.safetensors")
    merged = open_weights(tmp_path / "merged.safetensors")
    names = [name for name in recorded if name in merged]
    assert len(names) == len(recorded) - len(("rank", "alpha"))
    for name in names:
        agree(np.asarray(merged[name]), recorded[name])
        assert not np.array_equal(merged[name], open_weights(golden.path(TRANSFORMER))[name])
