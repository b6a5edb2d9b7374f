"""Layers that the encoder and the decoder of the video autoencoder share.

Features are channels-last, `[batch, frame, row, col, chan]`. A temporal convolution sees a frame
and the two before it. Those two are its state: `None` at the start of a clip (zeros), else the last
two input frames of the call before. Every layer that has a state takes the old one and returns the
new one, so a clip can be fed in pieces of any length:

    call 1   [0 0] a b c     new state [b c]
    call 2   [b c] d         new state [c d]

Source: CausalConv3d, ResidualBlock and AttentionBlock of the public Wan2.1 repository,
wan/modules/vae.py.
"""

from typing import Any, Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from shotstream_jax.models.attention import attend
from shotstream_jax.typing import Array, Float, Params, Pixels, UInt8

TAPS = 3
"""Frames that a temporal convolution sees: its own and two before it."""

FeatureMaps = Float[Array, "batch frame row col chan"]
"""Features inside the network, of consecutive latent or video frames at one resolution."""

ConvState = Float[Array, "batch 2 row col _"]
"""The last two input frames of a temporal convolution."""

ConvImpl = Literal["conv3d", "stacked"]
"""`conv3d` is one 3-D convolution; `stacked` puts the taps on channels, for one 2-D convolution."""

BlockState = tuple[ConvState | None, ConvState | None]
"""States of the two convolutions of a residual block."""

BLOCK_START: BlockState = (None, None)

# The floor of torch.nn.functional.normalize, which the public norm is written with.
_SMALLEST_NORM = 1e-12


def default_conv_impl(platform: str | None = None) -> ConvImpl:
    """The faster implementation on a platform: `cpu`, `gpu` or `tpu`, by default this machine's."""
    # XLA's CPU backend is slow at 3-D convolutions; elsewhere the copy that stacks three frames
    # costs more than a 2-D convolution saves.
    return "stacked" if (platform or jax.default_backend()) == "cpu" else "conv3d"


def causal_conv(
    x: FeatureMaps,
    state: ConvState | None,
    kernel: Float[Array, "3 height width chan out"],
    *,
    conv_impl: ConvImpl,
) -> Float[Array, "batch frame row col out"]:
    """Convolve each frame with the two before it; zeros around the picture keep its size."""
    if state is None and x.shape[1] == 1:
        # An image, or the first frame of a clip: two taps of three would multiply zeros.
        return _conv2d(x, kernel[-1])
    match conv_impl:
        case "stacked":
            return _conv2d(stack_taps(prepend_state(x, state)), _stack_kernel(kernel))
        case "conv3d":
            return jax.lax.conv_general_dilated(
                prepend_state(x, state),
                kernel,
                window_strides=(1, 1, 1),
                padding=((0, 0), *_same_padding(kernel.shape[1:3])),
                dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
            )


def next_state(x: FeatureMaps, state: ConvState | None) -> ConvState:
    """State after `x`: the two newest frames, zeros where a clip has fewer."""
    if x.shape[1] >= TAPS - 1:
        return x[:, x.shape[1] - (TAPS - 1) :]
    return prepend_state(x, state)[:, -(TAPS - 1) :]


def prepend_state(
    x: FeatureMaps, state: ConvState | None
) -> Float[Array, "batch longer row col chan"]:
    """Put the two earlier frames in front, zeros at the start of a clip."""
    if state is None:
        return jnp.pad(x, ((0, 0), (TAPS - 1, 0), (0, 0), (0, 0), (0, 0)))
    return jnp.concatenate([state, x], axis=1)


def stack_taps(x: FeatureMaps, *, stride: int = 1) -> Float[Array, "batch window row col stacked"]:
    """Lay the channels of every three consecutive frames side by side, oldest first.

    Windows begin `stride` frames apart; fewer than three frames make none.
    """
    last = x.shape[1] - TAPS + 1
    return jnp.concatenate([x[:, tap : last + tap : stride] for tap in range(TAPS)], axis=-1)


def _stack_kernel(
    kernel: Float[Array, "3 height width chan out"],
) -> Float[Array, "height width stacked out"]:
    _, height, width, _, out = kernel.shape
    return kernel.transpose(1, 2, 0, 3, 4).reshape(height, width, -1, out)


def _conv2d(
    x: FeatureMaps, kernel: Float[Array, "height width chan out"]
) -> Float[Array, "batch frame row col out"]:
    pictures = x.reshape(-1, *x.shape[2:])
    y = jax.lax.conv_general_dilated(
        pictures,
        kernel,
        window_strides=(1, 1),
        padding=_same_padding(kernel.shape[:2]),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _same_padding(sides: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((side // 2, side // 2) for side in sides)


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


def frames_to_pixels(
    frames: UInt8[Array, "*axes height width 3"],
) -> Float[Array, "*axes height width 3"]:
    """Colours in [0, 255] to [-1, 1]."""
    return frames.astype(jnp.float32) / 127.5 - 1


def pixels_to_frames(
    pixels: Float[Array, "*axes height width 3"],
) -> UInt8[Array, "*axes height width 3"]:
    """Colours in [-1, 1] to integers in [0, 255], clipped to that range."""
    # To the nearest integer: 8-bit frames survive the round trip. The public code truncates.
    return jnp.clip(jnp.round((pixels + 1) * 127.5), 0, 255).astype(jnp.uint8)


def apply_network(module: nn.Module, params: Params, *inputs: Any) -> Any:
    """A Linen module as a plain function of its parameters."""
    return module.apply({"params": params}, *inputs)


class ChannelNorm(nn.Module):
    """Scale each position to unit mean square over channels (in float32), then each channel."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        """Normalise."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (channels,))
        wide = x.astype(jnp.float32)
        energy = jnp.sum(jnp.square(wide), axis=-1, keepdims=True)
        norm = jnp.sqrt(jnp.maximum(energy, _SMALLEST_NORM**2))
        # Below the floor the derivative is its inverse, 1e12: a few such norms in a row would
        # overflow, so positions that small get no gradient at all.
        wide = jnp.where(energy > _SMALLEST_NORM**2, wide, jax.lax.stop_gradient(wide))
        # Unit norm times sqrt(channels) is unit mean square.
        gain = scale.astype(jnp.float32) * channels**0.5
        return (wide / norm * gain).astype(self.dtype)


class CausalConv(nn.Module):
    """A 3x3x3 convolution over a frame and the two before it."""

    features: int
    dtype: DTypeLike
    conv_impl: ConvImpl

    @nn.compact
    def __call__(
        self, x: FeatureMaps, state: ConvState | None = None
    ) -> tuple[Float[Array, "batch frame row col out"], ConvState]:
        """Convolve; also the state for the next call."""
        shape = (TAPS, 3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        x, kernel, bias = (value.astype(self.dtype) for value in (x, kernel, bias))
        return causal_conv(x, state, kernel, conv_impl=self.conv_impl) + bias, next_state(x, state)


class TimeConv(nn.Module):
    """A convolution over three frames, each position by itself."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, stacked: Float[Array, "batch frame row col stacked"]
    ) -> Float[Array, "batch frame row col out"]:
        """Convolve frames whose taps lie side by side on channels (`stack_taps`)."""
        # One position, three frames: a plain matrix product, faster than any convolution.
        shape = (TAPS, stacked.shape[-1] // TAPS, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        stacked, kernel, bias = (value.astype(self.dtype) for value in (stacked, kernel, bias))
        return stacked @ kernel.reshape(-1, self.features) + bias


class ResidualBlock(nn.Module):
    """Norm, SiLU and convolution, twice, around a shortcut."""

    features: int
    dtype: DTypeLike
    conv_impl: ConvImpl

    @nn.compact
    def __call__(
        self, x: FeatureMaps, state: BlockState = BLOCK_START
    ) -> tuple[Float[Array, "batch frame row col out"], BlockState]:
        """Apply; also the state for the next call."""
        h = nn.silu(ChannelNorm(self.dtype, name="norm_1")(x))
        h, first = CausalConv(self.features, self.dtype, self.conv_impl, name="conv_1")(h, state[0])
        h = nn.silu(ChannelNorm(self.dtype, name="norm_2")(h))
        h, second = CausalConv(self.features, self.dtype, self.conv_impl, name="conv_2")(
            h, state[1]
        )
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features, dtype=self.dtype, name="shortcut")(x)
        return x + h, (first, second)


class SpatialAttention(nn.Module):
    """Every position of a frame attends, with one head, to all positions of that frame."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        """Attend, and add to the input."""
        batch, frames, rows, cols, channels = x.shape
        qkv = nn.Dense(3 * channels, dtype=self.dtype, name="qkv")(
            ChannelNorm(self.dtype, name="norm")(x)
        )
        one_head = (batch * frames, rows * cols, 1, channels)
        q, k, v = (part.reshape(one_head) for part in jnp.split(qkv, 3, axis=-1))
        mixed = attend(q, k, v).reshape(x.shape)
        return x + nn.Dense(channels, dtype=self.dtype, name="out")(mixed)


class MidBlock(nn.Module):
    """The bottleneck: residual block, spatial attention, residual block."""

    dtype: DTypeLike
    conv_impl: ConvImpl

    @nn.compact
    def __call__(
        self, x: FeatureMaps, state: tuple[BlockState, BlockState] = (BLOCK_START, BLOCK_START)
    ) -> tuple[FeatureMaps, tuple[BlockState, BlockState]]:
        """Apply; also the state for the next call."""
        channels = x.shape[-1]
        x, before = ResidualBlock(channels, self.dtype, self.conv_impl, name="block_0")(x, state[0])
        x = SpatialAttention(self.dtype, name="attention")(x)
        x, after = ResidualBlock(channels, self.dtype, self.conv_impl, name="block_1")(x, state[1])
        return x, (before, after)


class OutputHead(nn.Module):
    """Norm, SiLU and convolution: the end of the encoder and of the decoder."""

    features: int
    dtype: DTypeLike
    conv_impl: ConvImpl

    @nn.compact
    def __call__(
        self, x: FeatureMaps, state: ConvState | None = None
    ) -> tuple[Float[Array, "batch frame row col out"], ConvState]:
        """Apply; also the state for the next call."""
        h = nn.silu(ChannelNorm(self.dtype, name="norm")(x))
        return CausalConv(self.features, self.dtype, self.conv_impl, name="conv")(h, state)
