"""The video autoencoder: pixels to normalised latents and back, whole clips or piece by piece.

    latents = encode(params, config, pixels)                                1 + 4 k video frames
    pixels = decode(params, config, latents)                                1 + k latent frames

    pixels, cache = decode_first(params, config, latents[:, :1])            1 video frame
    pixels, cache = decode_next(params, config, cache, latents[:, 1:3])     8 video frames
    pixels, cache = decode_next(params, config, cache, latents[:, 3:6])     12 video frames

Decoding in pieces takes two programs a chunk length: a clip begins, or it continues. The cache has
the same shape from the first call to the last, so `decode_next` can overwrite it (donate it).
Pieces of any lengths give the pixels of `decode`, up to float rounding.

Parameters are `{"encoder": ..., "decoder": ...}`. Latents that enter and leave are normalised per
channel, `(mean - latent_mean) / latent_std`. Input pixels are in [-1, 1]; output pixels are not
clamped. `dtype` is what the network computes in; results are float32.

Source: WanVAE of the public Wan2.1 repository, wan/modules/vae.py.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shotstream_jax.models.configs import VAEConfig
from shotstream_jax.models.vae_decoder import (
    Decoder,
    DecoderCache,
    decode,
    decode_first,
    decode_frame_by_frame,
    decode_frames,
    decode_next,
    denormalise_latents,
    start_of_clip,
)
from shotstream_jax.models.vae_encoder import (
    Encoder,
    encode,
    encode_images,
    encode_moments,
    normalise_latents,
)
from shotstream_jax.models.vae_layers import default_conv_impl, frames_to_pixels, pixels_to_frames
from shotstream_jax.typing import Array, Key, Params

__all__ = [
    "DecoderCache",
    "decode",
    "decode_first",
    "decode_frame_by_frame",
    "decode_frames",
    "decode_next",
    "denormalise_latents",
    "encode",
    "encode_images",
    "encode_moments",
    "frames_to_pixels",
    "init_decoder_cache",
    "init_vae",
    "normalise_latents",
    "pixels_to_frames",
]


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


def init_decoder_cache(
    config: VAEConfig, batch: int, rows: int, cols: int, dtype: DTypeLike = jnp.float32
) -> DecoderCache:
    """A cache of zeros in the shapes that `decode_next` takes and returns: to compile or plan with.

    It cannot begin a clip, whose first frame is not doubled in time: `decode_first` does.
    """
    # Shapes alone: nothing of the full-size network is computed or allocated.
    params = jax.eval_shape(lambda: init_vae(jax.random.key(0), config))
    latents = jax.ShapeDtypeStruct((batch, 1, rows, cols, config.latent_channels), jnp.float32)
    _, cache = jax.eval_shape(
        lambda params, latents: decode_first(params, config, latents, dtype=dtype), params, latents
    )
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), cache)


def _init_networks(key: Key[Array, ""], config: VAEConfig) -> Params:
    stride = config.spatial_stride
    encoder, decoder = (net(config, jnp.float32, default_conv_impl()) for net in (Encoder, Decoder))
    # The smallest clip there is: one frame of one latent position.
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
            # Fan-in is everything but the output channels.
            return next(normals).reshape(shape) * math.prod(shape[:-1]) ** -0.5
        case "scale":
            return jnp.ones(shape)
        case _:
            return jnp.zeros(shape)
