"""Layers that the encoder and the decoder of the video autoencoder share.

Features are channels-last, `[batch, frame, row, col, chan]`. A layer that looks back in time takes
its past and returns its new one (see `vae_conv.py`); `None` is the start of a clip.

Source: wan/modules/vae.py of the public Wan2.1 repository.
"""

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from shotstream_jax.models.attention import attend
from shotstream_jax.models.vae_conv import TAPS, Frames, Lowering, Past, causal_conv, remember
from shotstream_jax.typing import Array, Float, Pixels

_SMALLEST_NORM = 1e-12

BlockPast = tuple[Past | None, Past | None]
"""What the two convolutions of a residual block remember."""

BLOCK_START: BlockPast = (None, None)


def patchify(
    pixels: Pixels, size: int
) -> Float[Array, "batch video_frame patch_row patch_col patch_chan"]:
    """Lay the colours of each square of `size` pixels a side on channels, row by row."""
    return einops.rearrange(
        pixels, "b f (row down) (col right) c -> b f row col (down right c)", down=size, right=size
    )


def unpatchify(
    patches: Float[Array, "batch video_frame patch_row patch_col patch_chan"], size: int
) -> Pixels:
    """Undo `patchify`."""
    return einops.rearrange(
        patches, "b f row col (down right c) -> b f (row down) (col right) c", down=size, right=size
    )


class ChannelNorm(nn.Module):
    """Scale each position to unit mean square over channels (in float32), then each channel."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Frames) -> Frames:
        """Normalise."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (channels,))
        wide = x.astype(jnp.float32)
        energy = jnp.sum(jnp.square(wide), axis=-1, keepdims=True)
        norm = jnp.sqrt(jnp.maximum(energy, _SMALLEST_NORM**2))
        # Below the floor the slope is its inverse, 1e12: a few such norms in a row would overflow.
        wide = jnp.where(energy > _SMALLEST_NORM**2, wide, jax.lax.stop_gradient(wide))
        gain = scale.astype(jnp.float32) * channels**0.5
        return (wide / norm * gain).astype(self.dtype)


class CausalConv(nn.Module):
    """A 3x3x3 convolution over a frame and the two before it."""

    features: int
    dtype: DTypeLike
    lowering: Lowering

    @nn.compact
    def __call__(
        self, x: Frames, past: Past | None = None
    ) -> tuple[Float[Array, "batch frame row col out"], Past]:
        """Convolve, and return what the next call needs."""
        shape = (TAPS, 3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        x, kernel, bias = (value.astype(self.dtype) for value in (x, kernel, bias))
        return causal_conv(x, past, kernel, lowering=self.lowering) + bias, remember(x, past)


class TimeConv(nn.Module):
    """A convolution over three frames, each position by itself."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, stacked: Float[Array, "batch frame row col stacked"]
    ) -> Float[Array, "batch frame row col out"]:
        """Convolve frames whose taps lie side by side on channels (`stack_taps`)."""
        shape = (TAPS, stacked.shape[-1] // TAPS, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        stacked, kernel, bias = (value.astype(self.dtype) for value in (stacked, kernel, bias))
        return stacked @ kernel.reshape(-1, self.features) + bias


class ResidualBlock(nn.Module):
    """Norm, SiLU and convolution, twice, around a shortcut."""

    features: int
    dtype: DTypeLike
    lowering: Lowering

    @nn.compact
    def __call__(
        self, x: Frames, past: BlockPast = BLOCK_START
    ) -> tuple[Float[Array, "batch frame row col out"], BlockPast]:
        """Apply, and return what the next call needs."""
        h = nn.silu(ChannelNorm(self.dtype, name="norm_1")(x))
        h, first = CausalConv(self.features, self.dtype, self.lowering, name="conv_1")(h, past[0])
        h = nn.silu(ChannelNorm(self.dtype, name="norm_2")(h))
        h, second = CausalConv(self.features, self.dtype, self.lowering, name="conv_2")(h, past[1])
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features, dtype=self.dtype, name="shortcut")(x)
        return x + h, (first, second)


class SpatialAttention(nn.Module):
    """Every position of a frame attends, with one head, to all positions of that frame."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Frames) -> Frames:
        """Attend, and add."""
        batch, frames, rows, cols, channels = x.shape
        qkv = nn.Dense(3 * channels, dtype=self.dtype, name="qkv")(
            ChannelNorm(self.dtype, name="norm")(x)
        )
        one_head = (batch * frames, rows * cols, 1, channels)
        q, k, v = (part.reshape(one_head) for part in jnp.split(qkv, 3, axis=-1))
        mixed = attend(q, k, v).reshape(x.shape)
        return x + nn.Dense(channels, dtype=self.dtype, name="out")(mixed)


class Middle(nn.Module):
    """The narrowest place: residual block, attention, residual block."""

    dtype: DTypeLike
    lowering: Lowering

    @nn.compact
    def __call__(
        self, x: Frames, past: tuple[BlockPast, BlockPast] = (BLOCK_START, BLOCK_START)
    ) -> tuple[Frames, tuple[BlockPast, BlockPast]]:
        """Apply, and return what the next call needs."""
        channels = x.shape[-1]
        x, before = ResidualBlock(channels, self.dtype, self.lowering, name="block_0")(x, past[0])
        x = SpatialAttention(self.dtype, name="attention")(x)
        x, after = ResidualBlock(channels, self.dtype, self.lowering, name="block_1")(x, past[1])
        return x, (before, after)


class Exit(nn.Module):
    """The last norm, SiLU and convolution of the encoder or the decoder."""

    features: int
    dtype: DTypeLike
    lowering: Lowering

    @nn.compact
    def __call__(
        self, x: Frames, past: Past | None = None
    ) -> tuple[Float[Array, "batch frame row col out"], Past]:
        """Apply, and return what the next call needs."""
        h = nn.silu(ChannelNorm(self.dtype, name="norm")(x))
        return CausalConv(self.features, self.dtype, self.lowering, name="conv")(h, past)
