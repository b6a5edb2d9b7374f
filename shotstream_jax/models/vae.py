"""The video autoencoder: pixels to normalised latents and back, a whole clip at a time.

Parameters are `{"encoder": ..., "decoder": ...}`. Latents that enter and leave are normalised per
channel, `(mean - latent_mean) / latent_std`; pixels are in [-1, 1] going in, and come out as the
network makes them, not clamped. `dtype` is what the network computes in; results are float32.

Source: WanVAE of the public Wan2.1 repository, wan/modules/vae.py.
"""

import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shotstream_jax.models.vae_config import VAEConfig
from shotstream_jax.models.vae_conv import Lowering, default_lowering
from shotstream_jax.models.vae_decoder import Decoder, DecoderCache, start_of_clip
from shotstream_jax.models.vae_encoder import Encoder
from shotstream_jax.typing import Array, Key, Latents, Params, Pixels


def init_vae(key: Key[Array, ""], config: VAEConfig) -> Params:
    """Random float32 parameters of the encoder and the decoder: kernels of variance 1 / fan-in."""
    shapes = jax.eval_shape(lambda: _init_networks(key, config))
    leaves, tree = jax.tree.flatten_with_path(shapes)
    kernels = [leaf.size for path, leaf in leaves if _kind(path) == "kernel"]
    # One draw for all kernels: each of a hundred draws would take a CPU about a second to compile.
    pieces = iter(jnp.split(jax.random.normal(key, (sum(kernels),)), np.cumsum(kernels)[:-1]))
    return jax.tree.unflatten(
        tree, [_fill(_kind(path), leaf.shape, pieces) for path, leaf in leaves]
    )


def encode_moments(
    params: Params,
    config: VAEConfig,
    pixels: Pixels,
    *,
    dtype: DTypeLike = jnp.float32,
    lowering: Lowering | None = None,
) -> tuple[Latents, Latents]:
    """Mean and log variance of the latents of a whole clip, not normalised: for training.

    Raises:
      ValueError: frames or sides that do not divide into latents.
    """
    # Both raise on sizes that do not fit, of which a convolution would quietly drop the remainder.
    config.latent_frames(pixels.shape[1])
    config.latent_grid(*pixels.shape[2:4])
    encoder = Encoder(config, dtype, lowering or default_lowering())
    moments = _apply(encoder, params["encoder"], pixels.astype(dtype))
    mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
    return mean, log_variance


def encode(
    params: Params,
    config: VAEConfig,
    pixels: Pixels,
    *,
    dtype: DTypeLike = jnp.float32,
    lowering: Lowering | None = None,
) -> Latents:
    """Normalised latents (the mean, no sample) of a whole clip.

    Raises:
      ValueError: frames or sides that do not divide into latents.
    """
    mean, _ = encode_moments(params, config, pixels, dtype=dtype, lowering=lowering)
    return normalise(config, mean)


def encode_images(
    params: Params,
    config: VAEConfig,
    images: Pixels,
    *,
    dtype: DTypeLike = jnp.float32,
    lowering: Lowering | None = None,
) -> Latents:
    """Normalised latents of each frame as a clip of its own: one latent frame a video frame.

    Raises:
      ValueError: sides that do not divide into latents.
    """
    clips = images.reshape(-1, 1, *images.shape[2:])
    latents = encode(params, config, clips, dtype=dtype, lowering=lowering)
    return latents.reshape(*images.shape[:2], *latents.shape[2:])


def decode(
    params: Params,
    config: VAEConfig,
    latents: Latents,
    *,
    dtype: DTypeLike = jnp.float32,
    lowering: Lowering | None = None,
) -> Pixels:
    """Pixels of a whole clip, not clamped."""
    cache = start_of_clip(config)
    pixels, _ = decode_frames(params, config, cache, latents, dtype=dtype, lowering=lowering)
    return pixels


def decode_frames(
    params: Params,
    config: VAEConfig,
    cache: DecoderCache,
    latents: Latents,
    *,
    dtype: DTypeLike,
    lowering: Lowering | None,
) -> tuple[Pixels, DecoderCache]:
    """Pixels of the next frames of a clip, and the cache that the frames after them need."""
    decoder = Decoder(config, dtype, lowering or default_lowering())
    raw = denormalise(config, latents).astype(dtype)
    pixels, cache = _apply(decoder, params["decoder"], raw, cache)
    return pixels.astype(jnp.float32), cache


def normalise(config: VAEConfig, mean: Latents) -> Latents:
    """Shift and scale raw latents to zero mean and unit variance over the training set."""
    return (mean - jnp.asarray(config.latent_mean)) / jnp.asarray(config.latent_std)


def denormalise(config: VAEConfig, latents: Latents) -> Latents:
    """Undo `normalise`, in float32."""
    wide = latents.astype(jnp.float32)
    return wide * jnp.asarray(config.latent_std) + jnp.asarray(config.latent_mean)


def _apply(module: nn.Module, params: Params, *inputs: Any) -> Any:
    """A Linen module as a plain function of its parameters."""
    return module.apply({"params": params}, *inputs)


def _init_networks(key: Key[Array, ""], config: VAEConfig) -> Params:
    stride = config.spatial_stride
    encoder, decoder = (net(config, jnp.float32, default_lowering()) for net in (Encoder, Decoder))
    pixels = jnp.zeros((1, 1, stride, stride, 3))
    latents = jnp.zeros((1, 1, 1, 1, config.latent_channels))
    return {
        "encoder": encoder.init(key, pixels)["params"],
        "decoder": decoder.init(key, latents, start_of_clip(config))["params"],
    }


def _kind(path: tuple[Any, ...]) -> str:
    return path[-1].key


def _fill(kind: str, shape: tuple[int, ...], normals: Iterator[Array]) -> Array:
    match kind:
        case "kernel":
            return next(normals).reshape(shape) * math.prod(shape[:-1]) ** -0.5
        case "scale":
            return jnp.ones(shape)
        case _:
            return jnp.zeros(shape)
