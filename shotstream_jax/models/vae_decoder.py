"""The decoder of the video autoencoder: latents to pixels, from the start of a clip or further on.

There is one decoder. Its cache holds the state of every temporal convolution; at the start of a
clip the states are `None`. The first latent frame becomes one video frame, each later one a
temporal stride of them. A temporal up-convolution never sees the first frame: its state begins with
zeros.

    latents        0     1        2              whole clip, or [0] [1 2], or [0 1] [2], ...
    video frames   0   1 2 3 4  5 6 7 8          the same pixels whichever way

Source: Decoder3d of the public Wan2.1 repository, wan/modules/vae.py.
"""

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike

from shotstream_jax.models.configs import VAEConfig
from shotstream_jax.models.vae_layers import (
    BLOCK_START,
    BlockState,
    CausalConv,
    ConvImpl,
    ConvState,
    FeatureMaps,
    MidBlock,
    OutputHead,
    ResidualBlock,
    TimeConv,
    apply_network,
    default_conv_impl,
    next_state,
    prepend_state,
    stack_taps,
    unpatchify,
)
from shotstream_jax.pytree import pytree
from shotstream_jax.typing import Array, Float, Latents, Params, Pixels


@pytree
class StageState:
    """States of one stage of the decoder.

    Attributes:
      blocks: of its residual blocks.
      up: of its temporal up-convolution, `None` where there is none.
    """

    blocks: tuple[BlockState, ...]
    up: ConvState | None


@pytree
class DecoderCache:
    """State of the decoder within a clip: two frames for each temporal convolution.

    Attributes:
      conv_in: of the first convolution.
      middle: of the two residual blocks around the attention.
      stages: of each stage, from latent to pixel resolution.
      conv_out: of the last convolution.
    """

    conv_in: ConvState | None
    middle: tuple[BlockState, BlockState]
    stages: tuple[StageState, ...]
    conv_out: Float[Array, "batch 2 height width _"] | None


def start_of_clip(config: VAEConfig) -> DecoderCache:
    """The cache before the first frame: no state anywhere."""
    # A decoder stage has one residual block more than an encoder stage.
    blocks = (BLOCK_START,) * (config.residual_blocks + 1)
    return DecoderCache(
        conv_in=None,
        middle=(BLOCK_START, BLOCK_START),
        stages=(StageState(blocks=blocks, up=None),) * config.stages,
        conv_out=None,
    )


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
    pixels, cache = apply_network(decoder, params["decoder"], raw, cache)
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


class Decoder(nn.Module):
    """Un-normalised latents to pixels, not clamped."""

    config: VAEConfig
    dtype: DTypeLike
    conv_impl: ConvImpl

    @nn.compact
    def __call__(self, latents: Latents, cache: DecoderCache) -> tuple[Pixels, DecoderCache]:
        """Decode the next frames of a clip; also the cache for the frames after them."""
        config = self.config
        # The encoder's stages in reverse; after the last, at full size, nothing is doubled.
        doublings = (*reversed(config.temporal_downsample), None)
        widths = tuple(reversed(config.stage_channels))
        # A 1x1 convolution that the public code keeps outside its decoder, applied to every frame.
        x = nn.Dense(config.latent_channels, dtype=self.dtype, name="from_latents")(latents)
        x, conv_in = CausalConv(widths[0], self.dtype, self.conv_impl, name="conv_in")(
            x, cache.conv_in
        )
        x, middle = MidBlock(self.dtype, self.conv_impl, name="middle")(x, cache.middle)
        stages = []
        for index, features in enumerate(widths):
            stage = DecoderStage(
                features=features,
                doubles_time=doublings[index],
                dtype=self.dtype,
                conv_impl=self.conv_impl,
                name=f"stage_{index}",
            )
            x, stage_state = stage(x, cache.stages[index])
            stages.append(stage_state)
        head = OutputHead(config.patch_channels, self.dtype, self.conv_impl, name="exit")
        x, conv_out = head(x, cache.conv_out)
        newer = DecoderCache(
            conv_in=conv_in, middle=middle, stages=tuple(stages), conv_out=conv_out
        )
        return unpatchify(x, config.patch_size), newer


class DecoderStage(nn.Module):
    """Residual blocks at one resolution, then upsampling to the next.

    Attributes:
      features: width of the stage.
      doubles_time: whether upsampling doubles the frames too; `None` at the last stage.
      dtype: compute dtype.
      conv_impl: implementation of 3-D convolutions.
    """

    features: int
    doubles_time: bool | None
    dtype: DTypeLike
    conv_impl: ConvImpl

    @nn.compact
    def __call__(
        self, x: FeatureMaps, state: StageState
    ) -> tuple[Float[Array, "batch more high_row high_col out"], StageState]:
        """Apply; also the state for the next call."""
        blocks = []
        for index, old in enumerate(state.blocks):
            block = ResidualBlock(self.features, self.dtype, self.conv_impl, name=f"block_{index}")
            x, new = block(x, old)
            blocks.append(new)
        up = None
        if self.doubles_time is not None:
            x, up = Upsample(self.doubles_time, self.dtype, name="up")(x, state.up)
        return x, StageState(blocks=tuple(blocks), up=up)


class Upsample(nn.Module):
    """Double the picture and halve the channels; double the frames too if `doubles_time`."""

    doubles_time: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: FeatureMaps, state: ConvState | None
    ) -> tuple[Float[Array, "batch more high_row high_col out"], ConvState | None]:
        """Apply; also the state for the next call."""
        channels = x.shape[-1]
        if self.doubles_time:
            # The first frame of a clip stays one frame, and does not enter the state.
            first, rest = (x[:, :1], x[:, 1:]) if state is None else (x[:, :0], x)
            stacked = stack_taps(prepend_state(rest, state))
            # Twice the channels, then every frame's two halves become two frames.
            halves = TimeConv(2 * channels, self.dtype, name="time_conv")(stacked)
            pairs = einops.rearrange(halves, "b frame r c (two ch) -> b (frame two) r c ch", two=2)
            x, state = jnp.concatenate([first, pairs], axis=1), next_state(rest, state)
        # Nearest-neighbour doubling before the convolution, as the public weights expect.
        x = einops.repeat(x, "b frame r c ch -> b frame (r down) (c right) ch", down=2, right=2)
        conv = nn.Conv(channels // 2, (3, 3), padding=1, dtype=self.dtype, name="conv")
        return conv(x), state
