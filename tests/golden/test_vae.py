"""The autoencoder against recordings of the public implementation."""

import re

import jax
import numpy as np
import pytest

from shotstream_jax.checkpoints.names_vae import vae_names
from shotstream_jax.checkpoints.param_trees import build_params
from shotstream_jax.checkpoints.torch_weights import open_weights
from shotstream_jax.models import vae
from shotstream_jax.models.configs import VAEConfig

STATIC = ("config", "dtype", "conv_impl")
encode = jax.jit(vae.encode, static_argnames=STATIC)
encode_images = jax.jit(vae.encode_images, static_argnames=STATIC)
decode = jax.jit(vae.decode, static_argnames=STATIC)
decode_first = jax.jit(vae.decode_first, static_argnames=STATIC)
decode_next = jax.jit(vae.decode_next, static_argnames=STATIC)

CONV_IMPLS = pytest.mark.parametrize("conv_impl", ["stacked", "conv3d"])


@pytest.fixture(scope="module")
def config(golden):
    sizes = golden.sizes("vae")
    return VAEConfig(
        base_channels=sizes["dim"],
        latent_channels=sizes["z_dim"],
        multipliers=tuple(sizes["dim_mult"]),
        residual_blocks=sizes["num_res_blocks"],
        temporal_downsample=tuple(sizes["temporal_downsample"]),
    )


@pytest.fixture(scope="module")
def params(golden, config):
    return build_params(vae_names(config), open_weights(golden.path("Wan2.1_VAE.pth")))


@pytest.fixture(scope="module")
def recorded(golden):
    """Input and output of each recorded call, channels last, by `enc` or `dec` and frames."""
    arrays = golden.arrays("vae_golden")
    calls = {}
    for name in arrays:
        network, frames, axis = re.fullmatch(r"(enc|dec)(\d+)_([xz])", name).groups()
        calls.setdefault((network, int(frames)), {})[axis] = channels_last(arrays[name])
    return calls


def channels_last(array):
    return np.moveaxis(array, 1, -1)


def calls_of(recorded, network):
    """The recorded calls of the encoder or the decoder, shortest clip first."""
    calls = [call for (name, _), call in sorted(recorded.items()) if name == network]
    assert calls
    return calls


def test_encode(params, config, recorded, agree):
    for call in calls_of(recorded, "enc"):
        agree(encode(params, config, call["x"]), call["z"])


def test_encode_images(params, config, recorded, agree):
    call = calls_of(recorded, "enc")[-1]
    agree(encode_images(params, config, call["x"])[:, :1], call["z"][:, :1])


def test_decode(params, config, recorded, agree):
    for call in calls_of(recorded, "dec"):
        agree(decode(params, config, call["z"]), call["x"])


@CONV_IMPLS
def test_conv_impls(params, config, recorded, agree, conv_impl):
    longest = calls_of(recorded, "enc")[-1]
    agree(encode(params, config, longest["x"], conv_impl=conv_impl), longest["z"])
    longest = calls_of(recorded, "dec")[-1]
    agree(decode(params, config, longest["z"], conv_impl=conv_impl), longest["x"])


def test_decode_as_a_stream(params, config, recorded, agree):
    for call in calls_of(recorded, "dec"):
        first, *rest = np.split(call["z"], call["z"].shape[1], axis=1)
        pixels, cache = decode_first(params, config, first)
        film = [pixels]
        for latent in rest:
            pixels, cache = decode_next(params, config, cache, latent)
            film.append(pixels)
        agree(np.concatenate(film, axis=1), call["x"])


def test_decoded_film(params, config, golden, agree):
    film = golden.arrays("rollout_golden")
    shots = sorted(name for name in film if name.endswith("_latents") and "context" not in name)
    # Recorded as [batch, frame, chan, row, col].
    latents = [np.moveaxis(film[name], 2, -1) for name in shots]
    pixels = np.concatenate([decode(params, config, shot) for shot in latents], axis=1)
    seen = np.moveaxis((np.clip(pixels, -1, 1) + 1) / 2, -1, 2)
    assert seen.shape == tuple(film["video_shape"])
    agree(seen[:, ::3, :, ::2, ::2], film["video_strided"])
