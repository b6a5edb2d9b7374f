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

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.typing import DTypeLike

from shotstream_jax.models.vae_config import VAEConfig
from shotstream_jax.models.vae_decoder import Decoder, DecoderCache, start_of_clip
from shotstream_jax.models.vae_encoder import Encoder
from shotstream_jax.models.vae_layers import ConvImpl, default_conv_impl
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
    conv_impl: ConvImpl | None = None,
) -> tuple[Latents, Latents]:
    """Mean and log variance of the latents of a whole clip, not normalised: for training.

    Raises:
      ValueError: frames or sides that do not divide into latents.
    """
    # Both raise on sizes that do not fit: a convolution would silently drop the remainder.
    config.latent_frames(pixels.shape[1])
    config.latent_grid(*pixels.shape[2:4])
    encoder = Encoder(config, dtype, conv_impl or default_conv_impl())
    moments = _apply(encoder, params["encoder"], pixels.astype(dtype))
    mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
    return mean, log_variance


def encode(
    params: Params,
    config: VAEConfig,
    pixels: Pixels,
    *,
    dtype: DTypeLike = jnp.float32,
    conv_impl: ConvImpl | None = None,
) -> Latents:
    """Normalised latents (the mean, no sample) of a whole clip.

    Raises:
      ValueError: frames or sides that do not divide into latents.
    """
    mean, _ = encode_moments(params, config, pixels, dtype=dtype, conv_impl=conv_impl)
    return normalise_latents(config, mean)


def encode_images(
    params: Params,
    config: VAEConfig,
    images: Pixels,
    *,
    dtype: DTypeLike = jnp.float32,
    conv_impl: ConvImpl | None = None,
) -> Latents:
    """Normalised latents of each frame as a clip of its own: one latent frame a video frame.

    Raises:
      ValueError: sides that do not divide into latents.
    """
    # Frames of different shots have no common past, so each joins the batch as a clip.
    clips = images.reshape(-1, 1, *images.shape[2:])
    latents = encode(params, config, clips, dtype=dtype, conv_impl=conv_impl)
    return latents.reshape(*images.shape[:2], *latents.shape[2:])


def decode(
    params: Params,
    config: VAEConfig,
    latents: Latents,
    *,
    dtype: DTypeLike = jnp.float32,
    conv_impl: ConvImpl | None = None,
) -> Pixels:
    """Pixels of a whole clip, not clamped."""
    cache = start_of_clip(config)
    pixels, _ = decode_frames(params, config, cache, latents, dtype=dtype, conv_impl=conv_impl)
    return pixels


def decode_frames(
    params: Params,
    config: VAEConfig,
    cache: DecoderCache,
    latents: Latents,
    *,
    dtype: DTypeLike,
    conv_impl: ConvImpl | None,
) -> tuple[Pixels, DecoderCache]:
    """Pixels of the next frames of a clip, and the cache that the frames after them need."""
    decoder = Decoder(config, dtype, conv_impl or default_conv_impl())
    # Mean and spread are applied in float32, then rounded once to the compute dtype.
    raw = denormalise_latents(config, latents).astype(dtype)
    pixels, cache = _apply(decoder, params["decoder"], raw, cache)
    return pixels.astype(jnp.float32), cache


def decode_first(
    params: Params,
    config: VAEConfig,
    latents: Latents,
    *,
    dtype: DTypeLike = jnp.float32,
    conv_impl: ConvImpl | None = None,
) -> tuple[Pixels, DecoderCache]:
    """Begin a clip: the first latent frame gives one video frame, each later one a stride."""
    cache = start_of_clip(config)
    return decode_frames(params, config, cache, latents, dtype=dtype, conv_impl=conv_impl)


def decode_next(
    params: Params,
    config: VAEConfig,
    cache: DecoderCache,
    latents: Latents,
    *,
    dtype: DTypeLike = jnp.float32,
    conv_impl: ConvImpl | None = None,
) -> tuple[Pixels, DecoderCache]:
    """Continue a clip: each latent frame gives a temporal stride of video frames.

    Raises:
      ValueError: a cache of another clip: its batch, grid or format is not that of this call.
    """
    _check_cache(cache, latents, dtype)
    return decode_frames(params, config, cache, latents, dtype=dtype, conv_impl=conv_impl)


def decode_frame_by_frame(
    params: Params, config: VAEConfig, latents: Latents, *, dtype: DTypeLike = jnp.float32
) -> Pixels:
    """`decode`, one latent frame after another: a whole clip in the memory that one frame takes."""
    first, cache = decode_first(params, config, latents[:, :1], dtype=dtype)

    def step(cache: DecoderCache, frame: Latents) -> tuple[DecoderCache, Pixels]:
        pixels, cache = decode_next(params, config, cache, frame, dtype=dtype)
        return cache, pixels

    # A scan holds the activations of one frame; its cache has one shape because `first` was made.
    later = rearrange(latents[:, 1:], "batch frame ... -> frame batch 1 ...")
    _, rest = jax.lax.scan(step, cache, later)
    later = rearrange(rest, "frame batch shown ... -> batch (frame shown) ...")
    return jnp.concatenate([first, later], axis=1)


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


def normalise_latents(config: VAEConfig, mean: Latents) -> Latents:
    """Shift and scale raw latents to zero mean and unit variance over the training set."""
    return (mean - jnp.asarray(config.latent_mean)) / jnp.asarray(config.latent_std)


def denormalise_latents(config: VAEConfig, latents: Latents) -> Latents:
    """Undo `normalise_latents`, in float32."""
    wide = latents.astype(jnp.float32)
    return wide * jnp.asarray(config.latent_std) + jnp.asarray(config.latent_mean)


def _check_cache(cache: DecoderCache, latents: Latents, dtype: DTypeLike) -> None:
    if cache.conv_in is None:
        raise ValueError(
            "The cache is that of a clip that has not begun; call decode_first to begin it."
        )
    batch, _, rows, cols, _ = cache.conv_in.shape
    # Inside jit a mismatch would fail later, as a shape error of some convolution.
    held = (batch, rows, cols, jnp.dtype(cache.conv_in.dtype).name)
    asked = (latents.shape[0], *latents.shape[2:4], jnp.dtype(dtype).name)
    if held != asked:
        raise ValueError(
            f"The cache holds (batch, rows, cols, dtype) {held}, but this call has {asked}; "
            "decode a clip from first to last with one picture size and one dtype."
        )


def _apply(module: nn.Module, params: Params, *inputs: Any) -> Any:
    """A Linen module as a plain function of its parameters."""
    return module.apply({"params": params}, *inputs)


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
