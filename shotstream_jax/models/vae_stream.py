"""Decoding a clip while it is still being made.

    pixels, cache = decode_first(params, config, latents[:, :1])        1 video frame
    pixels, cache = decode_next(params, config, cache, latents[:, 1:3]) 8 video frames
    pixels, cache = decode_next(params, config, cache, latents[:, 3:6]) 12 video frames

Two programs a chunk length: a clip begins, or it goes on. The cache has the same shape from the
first call to the last, so `decode_next` may be given it to overwrite (donate it). Pieces of any
lengths give the pixels of `decode`, up to float rounding.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike

from shotstream_jax.models.vae import decode_frames, init_vae
from shotstream_jax.models.vae_config import VAEConfig
from shotstream_jax.models.vae_conv import Lowering
from shotstream_jax.models.vae_decoder import DecoderCache, start_of_clip
from shotstream_jax.typing import Latents, Params, Pixels


def decode_first(
    params: Params,
    config: VAEConfig,
    latents: Latents,
    *,
    dtype: DTypeLike = jnp.float32,
    lowering: Lowering | None = None,
) -> tuple[Pixels, DecoderCache]:
    """Begin a clip: the first latent frame gives one video frame, each further one a stride."""
    cache = start_of_clip(config)
    return decode_frames(params, config, cache, latents, dtype=dtype, lowering=lowering)


def decode_next(
    params: Params,
    config: VAEConfig,
    cache: DecoderCache,
    latents: Latents,
    *,
    dtype: DTypeLike = jnp.float32,
    lowering: Lowering | None = None,
) -> tuple[Pixels, DecoderCache]:
    """Go on with a clip: each latent frame gives a temporal stride of video frames.

    Raises:
      ValueError: a cache of another clip: its batch, grid or format is not that of this call.
    """
    _check_cache(cache, latents, dtype)
    return decode_frames(params, config, cache, latents, dtype=dtype, lowering=lowering)


def decode_in_turn(
    params: Params, config: VAEConfig, latents: Latents, *, dtype: DTypeLike = jnp.float32
) -> Pixels:
    """`decode`, one latent frame after another: a whole clip in the memory that one frame takes."""
    first, cache = decode_first(params, config, latents[:, :1], dtype=dtype)

    def step(cache: DecoderCache, frame: Latents) -> tuple[DecoderCache, Pixels]:
        pixels, cache = decode_next(params, config, cache, frame, dtype=dtype)
        return cache, pixels

    later = rearrange(latents[:, 1:], "batch frame ... -> frame batch 1 ...")
    _, rest = jax.lax.scan(step, cache, later)
    film = rearrange(rest, "frame batch shown ... -> batch (frame shown) ...")
    return jnp.concatenate([first, film], axis=1)


def init_decoder_cache(
    config: VAEConfig, batch: int, rows: int, cols: int, dtype: DTypeLike = jnp.float32
) -> DecoderCache:
    """A cache of zeros, shaped as `decode_next` takes and returns it: to compile or plan with.

    No film begins with it: a clip's first frame is not doubled in time, so `decode_first` makes it.
    """
    params = jax.eval_shape(lambda: init_vae(jax.random.key(0), config))
    latents = jax.ShapeDtypeStruct((batch, 1, rows, cols, config.latent_channels), jnp.float32)
    _, cache = jax.eval_shape(
        lambda params, latents: decode_first(params, config, latents, dtype=dtype), params, latents
    )
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), cache)


def _check_cache(cache: DecoderCache, latents: Latents, dtype: DTypeLike) -> None:
    if cache.conv_in is None:
        raise ValueError("The cache is that of a clip not begun; call decode_first to begin it.")
    batch, _, rows, cols, _ = cache.conv_in.shape
    held = (batch, rows, cols, jnp.dtype(cache.conv_in.dtype).name)
    asked = (latents.shape[0], *latents.shape[2:4], jnp.dtype(dtype).name)
    if held != asked:
        raise ValueError(
            f"The cache holds (batch, rows, cols, dtype) {held}, but this call has {asked}; "
            "decode a clip from first to last with one picture size and one dtype."
        )
