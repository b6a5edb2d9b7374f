"""Stage 0, the miniature's video autoencoder: what it is to make small, and where it starts.

Pixels are to come back as they were: their mean absolute error, and that of the differences between
neighbouring pixels, which a blurred edge gets wrong. What moves is a small part of a picture and
may count for more. A very small divergence keeps the latents from growing. There is no learnt
judge.

Source: Wan (arXiv 2503.20314), section 4.1, without its perceptual and adversarial terms.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from shotstream_jax.models.vae import decode, encode_moments, init_vae
from shotstream_jax.models.vae_config import VAEConfig
from shotstream_jax.train.losses import LossAux, LossOutput
from shotstream_jax.typing import Array, Float, Key, Latents, Params, Pixels

_LARGEST_LOG_VARIANCE = 20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAELoss:
    """Weights of the terms beside the pixels' own error.

    Attributes:
      edges: of the error of differences between neighbouring pixels.
      divergence: of the latents' divergence from unit Gaussians.
      motion: how much more a pixel's error counts for each unit of its colour's distance from what
        is usual at its place in the clip (0 to 2).
    """

    edges: float = 1.0
    divergence: float = 1e-6
    motion: float = 0.0


def vae_loss(
    params: Params,
    config: VAEConfig,
    pixels: Pixels,
    keys: Key[Array, " batch"],
    *,
    loss: VAELoss = VAELoss(),
    dtype: DTypeLike = jnp.float32,
) -> LossOutput:
    """Error of clips that went through the autoencoder, with one key of chance for each.

    The latents are not normalised: `config` must say mean 0 and deviation 1.
    """
    mean, log_variance = encode_moments(params, config, pixels, dtype=dtype)
    log_variance = jnp.clip(log_variance, -_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE)
    noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
    latents = mean + jnp.exp(log_variance / 2) * noise
    wrong = decode(params, config, latents, dtype=dtype) - pixels
    parts = {
        "pixels": (jnp.abs(wrong) * (1 + loss.motion * _motion(pixels))).mean(),
        "edges": _steps(wrong, axis=2) + _steps(wrong, axis=3),
        "divergence": _divergence(mean, log_variance),
    }
    total = parts["pixels"] + loss.edges * parts["edges"] + loss.divergence * parts["divergence"]
    return total, LossAux(metrics={**parts, "psnr": peak_ratio(jnp.square(wrong).mean())})


def peak_ratio(square_error: Float[Array, "*many"]) -> Float[Array, "*many"]:
    """Peak signal-to-noise ratio in dB of a mean square error of pixels in [-1, 1]."""
    return 10 * jnp.log10(4 / jnp.maximum(square_error, 1e-10))


def init_inflated(key: Key[Array, ""], config: VAEConfig) -> Params:
    """A random autoencoder for pictures, which takes a clip for a row of pictures.

    It first learns on pictures, where only the newest tap of a temporal convolution is seen; were
    the taps before it random, clips would later come out as noise. They begin at zero. The ways to
    fewer and to more frames begin as choosing a frame and as repeating it.

        tap        two before   one before   newest
        kernel     0            0            sqrt(3) x random (its variance is as for one tap)
        down, up   0            0            identity
    """
    return jax.tree_util.tree_map_with_path(_inflate, init_vae(key, config))


def _inflate(path: tuple[Any, ...], leaf: Array) -> Array:
    if path[-1].key != "kernel":
        return leaf
    if path[-2].key == "time_conv":
        taps, channels, out = leaf.shape
        same = jnp.tile(jnp.eye(channels), (1, out // channels))
        return jnp.zeros_like(leaf).at[taps - 1].set(same)
    if leaf.ndim == 5:
        taps = leaf.shape[0]
        return jnp.zeros_like(leaf).at[-1].set(leaf[-1] * taps**0.5)
    return leaf


def _motion(pixels: Pixels) -> Float[Array, "batch video_frame height width 1"]:
    """Distance of every pixel's colour from the mean at its place, over the clip."""
    return jnp.abs(pixels - pixels.mean(axis=1, keepdims=True)).mean(axis=-1, keepdims=True)


def _steps(wrong: Pixels, axis: int) -> Float[Array, ""]:
    return jnp.abs(jnp.diff(wrong, axis=axis)).mean()


def _divergence(mean: Latents, log_variance: Latents) -> Float[Array, ""]:
    return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance).mean()
