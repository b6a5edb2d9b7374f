"""The encoder of the video autoencoder: pixels to the moments of latents.

The first frame of a clip stands alone and each later latent frame gathers a temporal stride of
video frames, so `1 + 4 k` video frames become `1 + k` latent frames, and a clip of one frame meets
no temporal weight at all.

Source: Encoder3d of the public Wan2.1 repository, wan/modules/vae.py.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from shotstream_jax.models.vae_config import VAEConfig
from shotstream_jax.models.vae_conv import Frames, Lowering, stack_taps
from shotstream_jax.models.vae_layers import (
    CausalConv,
    Exit,
    Middle,
    ResidualBlock,
    TimeConv,
    patchify,
)
from shotstream_jax.typing import Array, Float, Pixels


class Encoder(nn.Module):
    """Pixels to the mean and the log variance of un-normalised latents, side by side."""

    config: VAEConfig
    dtype: DTypeLike
    lowering: Lowering

    @nn.compact
    def __call__(self, pixels: Pixels) -> Float[Array, "batch frame row col moment"]:
        """Encode a whole clip."""
        config = self.config
        halvings = (*config.temporal_downsample, None)
        x = patchify(pixels, config.patch_size)
        x, _ = CausalConv(config.base_channels, self.dtype, self.lowering, name="conv_in")(x)
        for index, features in enumerate(config.stage_channels):
            x = EncoderStage(
                features=features,
                blocks=config.residual_blocks,
                halves_time=halvings[index],
                dtype=self.dtype,
                lowering=self.lowering,
                name=f"stage_{index}",
            )(x)
        x, _ = Middle(self.dtype, self.lowering, name="middle")(x)
        moments = 2 * config.latent_channels
        x, _ = Exit(moments, self.dtype, self.lowering, name="exit")(x)
        return nn.Dense(moments, dtype=self.dtype, name="to_moments")(x)


class EncoderStage(nn.Module):
    """Residual blocks at one resolution, then the way down to the next.

    Attributes:
      features: width of the stage.
      blocks: residual blocks.
      halves_time: whether the way down halves the frames too; `None` at the last stage.
      dtype: compute dtype.
      lowering: of 3-D convolutions.
    """

    features: int
    blocks: int
    halves_time: bool | None
    dtype: DTypeLike
    lowering: Lowering

    @nn.compact
    def __call__(self, x: Frames) -> Float[Array, "batch fewer low_row low_col out"]:
        """Apply."""
        for index in range(self.blocks):
            block = ResidualBlock(self.features, self.dtype, self.lowering, name=f"block_{index}")
            x, _ = block(x)
        if self.halves_time is None:
            return x
        return Downsample(self.halves_time, self.dtype, name="down")(x)


class Downsample(nn.Module):
    """Halve the picture, and the frames after the first if `halves_time`."""

    halves_time: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Frames) -> Float[Array, "batch fewer half_row half_col chan"]:
        """Apply."""
        channels = x.shape[-1]
        # Torch would pad all four sides; the public weights know zeros below and right only.
        beyond = ((0, 1), (0, 1))
        x = nn.Conv(channels, (3, 3), 2, padding=beyond, dtype=self.dtype, name="conv")(x)
        if not self.halves_time:
            return x
        pairs = TimeConv(channels, self.dtype, name="time_conv")(stack_taps(x, stride=2))
        return jnp.concatenate([x[:, :1], pairs], axis=1)
