"""The encoder of the video autoencoder: pixels to the moments of latents.

The first frame of a clip stands alone and each later latent frame gathers a temporal stride of
video frames, so `1 + 4 k` video frames become `1 + k` latent frames, and a clip of one frame meets
no temporal weight at all.

Source: Encoder3d of the public Wan2.1 repository, wan/modules/vae.py.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from shotstream_jax.models.configs import VAEConfig
from shotstream_jax.models.vae_layers import (
    CausalConv,
    ConvImpl,
    FeatureMaps,
    MidBlock,
    OutputHead,
    ResidualBlock,
    TimeConv,
    apply_network,
    default_conv_impl,
    patchify,
    stack_taps,
)
from shotstream_jax.typing import Array, Float, Latents, Params, Pixels


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
    moments = apply_network(encoder, params["encoder"], pixels.astype(dtype))
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


def normalise_latents(config: VAEConfig, mean: Latents) -> Latents:
    """Shift and scale raw latents to zero mean and unit variance over the training set."""
    return (mean - jnp.asarray(config.latent_mean)) / jnp.asarray(config.latent_std)


class Encoder(nn.Module):
    """Pixels to the mean and the log variance of un-normalised latents, side by side."""

    config: VAEConfig
    dtype: DTypeLike
    conv_impl: ConvImpl

    @nn.compact
    def __call__(self, pixels: Pixels) -> Float[Array, "batch frame row col moment"]:
        """Encode a whole clip."""
        config = self.config
        # The last stage does not downsample.
        halvings = (*config.temporal_downsample, None)
        x = patchify(pixels, config.patch_size)
        x, _ = CausalConv(config.base_channels, self.dtype, self.conv_impl, name="conv_in")(x)
        for index, features in enumerate(config.stage_channels):
            x = EncoderStage(
                features=features,
                blocks=config.residual_blocks,
                halves_time=halvings[index],
                dtype=self.dtype,
                conv_impl=self.conv_impl,
                name=f"stage_{index}",
            )(x)
        x, _ = MidBlock(self.dtype, self.conv_impl, name="middle")(x)
        moments = 2 * config.latent_channels
        x, _ = OutputHead(moments, self.dtype, self.conv_impl, name="exit")(x)
        # A 1x1 convolution that the public code keeps outside its encoder, applied to every frame.
        return nn.Dense(moments, dtype=self.dtype, name="to_moments")(x)


class EncoderStage(nn.Module):
    """Residual blocks at one resolution, then downsampling to the next.

    Attributes:
      features: width of the stage.
      blocks: residual blocks.
      halves_time: whether downsampling halves the frames too; `None` at the last stage.
      dtype: compute dtype.
      conv_impl: implementation of 3-D convolutions.
    """

    features: int
    blocks: int
    halves_time: bool | None
    dtype: DTypeLike
    conv_impl: ConvImpl

    @nn.compact
    def __call__(self, x: FeatureMaps) -> Float[Array, "batch fewer low_row low_col out"]:
        """Apply."""
        for index in range(self.blocks):
            block = ResidualBlock(self.features, self.dtype, self.conv_impl, name=f"block_{index}")
            x, _ = block(x)
        if self.halves_time is None:
            return x
        return Downsample(self.halves_time, self.dtype, name="down")(x)


class Downsample(nn.Module):
    """Halve the picture, and the frames after the first if `halves_time`."""

    halves_time: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: FeatureMaps) -> Float[Array, "batch fewer half_row half_col chan"]:
        """Apply."""
        channels = x.shape[-1]
        # The public weights were trained with zeros below and right only, not on all four sides.
        beyond = ((0, 1), (0, 1))
        x = nn.Conv(channels, (3, 3), 2, padding=beyond, dtype=self.dtype, name="conv")(x)
        if not self.halves_time:
            return x
        # The first frame never meets the temporal weights, so one image is a clip of one frame;
        # windows of three frames, two apart, halve the rest.
        pairs = TimeConv(channels, self.dtype, name="time_conv")(stack_taps(x, stride=2))
        return jnp.concatenate([x[:, :1], pairs], axis=1)
