"""The decoder of the video autoencoder: latents to pixels, from the start of a clip or further on.

There is one decoder. Its cache holds the past of every temporal convolution; at the start of a clip
the past is `None`. The first latent frame becomes one video frame, each later one a temporal
stride of them. A temporal up-convolution never sees the first frame: its past begins with zeros.

    latents        0     1        2              whole clip, or [0] [1 2], or [0 1] [2], ...
    video frames   0   1 2 3 4  5 6 7 8          the same pixels whichever way

Source: Decoder3d of the public Wan2.1 repository, wan/modules/vae.py.
"""

import einops
import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from shotstream_jax.models.vae_config import VAEConfig
from shotstream_jax.models.vae_conv import (
    Frames,
    Lowering,
    Past,
    prepend_past,
    remember,
    stack_taps,
)
from shotstream_jax.models.vae_layers import (
    BLOCK_START,
    BlockPast,
    CausalConv,
    Exit,
    Middle,
    ResidualBlock,
    TimeConv,
    unpatchify,
)
from shotstream_jax.pytree import pytree
from shotstream_jax.typing import Array, Float, Latents, Pixels


@pytree
class StagePast:
    """What one stage of the decoder remembers.

    Attributes:
      blocks: past of its residual blocks.
      up: past of its temporal up-convolution, `None` where there is none.
    """

    blocks: tuple[BlockPast, ...]
    up: Past | None


@pytree
class DecoderCache:
    """What the decoder remembers of a clip: two frames for each temporal convolution.

    Attributes:
      conv_in: past of the first convolution.
      middle: past of the two residual blocks around the attention.
      stages: past of each stage, from latent to pixel resolution.
      conv_out: past of the last convolution.
    """

    conv_in: Past | None
    middle: tuple[BlockPast, BlockPast]
    stages: tuple[StagePast, ...]
    conv_out: Float[Array, "batch 2 height width _"] | None


def start_of_clip(config: VAEConfig) -> DecoderCache:
    """The cache before the first frame: nothing anywhere."""
    blocks = (BLOCK_START,) * (config.residual_blocks + 1)
    return DecoderCache(
        conv_in=None,
        middle=(BLOCK_START, BLOCK_START),
        stages=(StagePast(blocks=blocks, up=None),) * config.stages,
        conv_out=None,
    )


class Decoder(nn.Module):
    """Un-normalised latents to pixels, not clamped."""

    config: VAEConfig
    dtype: DTypeLike
    lowering: Lowering

    @nn.compact
    def __call__(self, latents: Latents, cache: DecoderCache) -> tuple[Pixels, DecoderCache]:
        """Decode the next frames of a clip, and return what the next call needs."""
        config = self.config
        doublings = (*reversed(config.temporal_downsample), None)
        widths = tuple(reversed(config.stage_channels))
        x = nn.Dense(config.latent_channels, dtype=self.dtype, name="from_latents")(latents)
        x, conv_in = CausalConv(widths[0], self.dtype, self.lowering, name="conv_in")(
            x, cache.conv_in
        )
        x, middle = Middle(self.dtype, self.lowering, name="middle")(x, cache.middle)
        stages = []
        for index, features in enumerate(widths):
            stage = DecoderStage(
                features=features,
                doubles_time=doublings[index],
                dtype=self.dtype,
                lowering=self.lowering,
                name=f"stage_{index}",
            )
            x, past = stage(x, cache.stages[index])
            stages.append(past)
        leave = Exit(config.patch_channels, self.dtype, self.lowering, name="exit")
        x, conv_out = leave(x, cache.conv_out)
        newer = DecoderCache(
            conv_in=conv_in, middle=middle, stages=tuple(stages), conv_out=conv_out
        )
        return unpatchify(x, config.patch_size), newer


class DecoderStage(nn.Module):
    """Residual blocks at one resolution, then the way up to the next.

    Attributes:
      features: width of the stage.
      doubles_time: whether the way up doubles the frames too; `None` at the last stage.
      dtype: compute dtype.
      lowering: of 3-D convolutions.
    """

    features: int
    doubles_time: bool | None
    dtype: DTypeLike
    lowering: Lowering

    @nn.compact
    def __call__(
        self, x: Frames, past: StagePast
    ) -> tuple[Float[Array, "batch more high_row high_col out"], StagePast]:
        """Apply, and return what the next call needs."""
        blocks = []
        for index, old in enumerate(past.blocks):
            block = ResidualBlock(self.features, self.dtype, self.lowering, name=f"block_{index}")
            x, new = block(x, old)
            blocks.append(new)
        up = None
        if self.doubles_time is not None:
            x, up = Upsample(self.doubles_time, self.dtype, name="up")(x, past.up)
        return x, StagePast(blocks=tuple(blocks), up=up)


class Upsample(nn.Module):
    """Double the picture and halve the channels; double the frames too if `doubles_time`."""

    doubles_time: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Frames, past: Past | None
    ) -> tuple[Float[Array, "batch more high_row high_col out"], Past | None]:
        """Apply, and return what the next call needs."""
        channels = x.shape[-1]
        if self.doubles_time:
            # The first frame of a clip stays one frame, and stays out of the past.
            first, rest = (x[:, :1], x[:, 1:]) if past is None else (x[:, :0], x)
            stacked = stack_taps(prepend_past(rest, past))
            halves = TimeConv(2 * channels, self.dtype, name="time_conv")(stacked)
            pairs = einops.rearrange(halves, "b frame r c (two ch) -> b (frame two) r c ch", two=2)
            x, past = jnp.concatenate([first, pairs], axis=1), remember(rest, past)
        x = einops.repeat(x, "b frame r c ch -> b frame (r down) (c right) ch", down=2, right=2)
        conv = nn.Conv(channels // 2, (3, 3), padding=1, dtype=self.dtype, name="conv")
        return conv(x), past
