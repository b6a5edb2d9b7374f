"""Stage 0, the miniature's video autoencoder: its loss, and its initial parameters.

The loss is the mean absolute error of reconstructed pixels, and that of the differences between
neighbouring pixels, which a blurred edge gets wrong. What moves is a small part of a picture and
may count for more. A very small divergence keeps the latents from growing.

Source: Wan (arXiv 2503.20314), section 4.1, without its perceptual and adversarial terms.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from shotstream_jax.models.configs import VAEConfig
from shotstream_jax.models.vae import decode, encode_moments, init_vae
from shotstream_jax.train.losses import LossAux, LossOutput
from shotstream_jax.typing import Array, Float, Key, Latents, Params, Pixels

# As in latent diffusion's public autoencoder, which clamps to [-30, 20]: first outputs of a random
# encoder must not overflow the exponential. Below -20 the deviation, e^-10, is no noise any more.
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
    """Loss of reconstructed clips, whose latents are drawn with one PRNG key a clip.

    The latents are not normalised: `config` must say mean 0 and deviation 1.
    """
    mean, log_variance = encode_moments(params, config, pixels, dtype=dtype)
    log_variance = jnp.clip(log_variance, -_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE)
    noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
    # Half the logarithm of a variance is that of a deviation: the reparameterised draw of VAEs.
    latents = mean + jnp.exp(log_variance / 2) * noise
    wrong = decode(params, config, latents, dtype=dtype) - pixels
    # Absolute and not square: squares are smallest for the mean of what is possible, a blur.
    parts = {
        "pixels": (jnp.abs(wrong) * (1 + loss.motion * _motion(pixels))).mean(),
        "edges": _steps(wrong, axis=2) + _steps(wrong, axis=3),
        "divergence": _divergence(mean, log_variance),
    }
    total = parts["pixels"] + loss.edges * parts["edges"] + loss.divergence * parts["divergence"]
    return total, LossAux(metrics={**parts, "psnr": peak_ratio(jnp.square(wrong).mean())})


def peak_ratio(square_error: Float[Array, "*many"]) -> Float[Array, "*many"]:
    """Peak signal-to-noise ratio in dB of a mean square error of pixels in [-1, 1]."""
    # The peak is the range, 2, squared. The floor keeps a perfect copy finite, at 106 dB.
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
        # Upsampling makes two frames' channels of one's: the identity, once for each.
        same = jnp.tile(jnp.eye(channels), (1, out // channels))
        return jnp.zeros_like(leaf).at[taps - 1].set(same)
    if leaf.ndim == 5:
        # Drawn for a sum over all taps; a single one needs `taps` times their variance.
        taps = leaf.shape[0]
        return jnp.zeros_like(leaf).at[-1].set(leaf[-1] * taps**0.5)
    return leaf


def _motion(pixels: Pixels) -> Float[Array, "batch video_frame height width 1"]:
    """Distance of every pixel's colour from the mean at its place, over the clip."""
    # The mean over the clip stands for the background, which most frames show at a place.
    return jnp.abs(pixels - pixels.mean(axis=1, keepdims=True)).mean(axis=-1, keepdims=True)


def _steps(wrong: Pixels, axis: int) -> Float[Array, ""]:
    return jnp.abs(jnp.diff(wrong, axis=axis)).mean()


def _divergence(mean: Latents, log_variance: Latents) -> Float[Array, ""]:
    # Kingma and Welling (arXiv 1312.6114), appendix B: the divergence from a unit Gaussian, here a
    # mean over channels and not a sum, so that its weight holds for any latent size.
    return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance).mean()
