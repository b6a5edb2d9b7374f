"""Names of the video autoencoder's tensors: the official file and diffusers'.

Both hold the same 194 arrays. They differ in the names of modules and in how the decoder's stages
are counted: the official file numbers blocks and up-convolutions straight through, diffusers groups
them by stage. A `_Dialect` is that difference; the walk over the network is one.
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal

from shotstream_jax.checkpoints.naming import Layout, ParamPath, TensorMapping
from shotstream_jax.models.configs import VAEConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Dialect:
    """The name of each module.

    The templates may use `stage`, `index` (within the stage) and `flat` (through all stages).
    """

    # In a residual block.
    norm_1: str
    conv_1: str
    norm_2: str
    conv_2: str
    shortcut: str
    # In the encoder and the decoder.
    conv_in: str
    middle: tuple[str, str, str]
    exit_norm: str
    exit_conv: str
    # Templates in the encoder (down) and the decoder (up).
    down_block: str
    down: str
    up_block: str
    up: str
    # In the file.
    to_moments: str
    from_latents: str


_OFFICIAL = _Dialect(
    norm_1="residual.0",
    conv_1="residual.2",
    norm_2="residual.3",
    conv_2="residual.6",
    shortcut="shortcut",
    conv_in="conv1",
    middle=("middle.0", "middle.1", "middle.2"),
    exit_norm="head.0",
    exit_conv="head.2",
    down_block="downsamples.{flat}",
    down="downsamples.{flat}",
    up_block="upsamples.{flat}",
    up="upsamples.{flat}",
    to_moments="conv1",
    from_latents="conv2",
)

_DIFFUSERS = _Dialect(
    norm_1="norm1",
    conv_1="conv1",
    norm_2="norm2",
    conv_2="conv2",
    shortcut="conv_shortcut",
    conv_in="conv_in",
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    exit_norm="norm_out",
    exit_conv="conv_out",
    down_block="down_blocks.{flat}",
    down="down_blocks.{flat}",
    up_block="up_blocks.{stage}.resnets.{index}",
    up="up_blocks.{stage}.upsamplers.0",
    to_moments="quant_conv",
    from_latents="post_quant_conv",
)

_Kind = Literal["norm", "norm2d", "conv", "conv2d", "time_conv", "pointwise", "pointwise2d"]

# All but pointwise ones reach one pixel to each side; those in time, over three frames.
_KERNELS: dict[_Kind, tuple[Layout, tuple[int, ...]]] = {
    "conv": (Layout.CONV3D, (3, 3, 3)),
    "conv2d": (Layout.CONV2D, (3, 3)),
    "time_conv": (Layout.TIME_CONV, (3, 1, 1)),
    "pointwise": (Layout.POINTWISE, (1, 1, 1)),
    "pointwise2d": (Layout.POINTWISE, (1, 1)),
}


@dataclasses.dataclass(frozen=True)
class _Module:
    """One module with parameters: where it is in a file and in our tree, and its size."""

    name: str
    path: ParamPath
    kind: _Kind
    inputs: int
    outputs: int

    def mappings(self) -> Iterator[tuple[str, TensorMapping]]:
        if self.kind in ("norm", "norm2d"):
            # The files shape a norm's scale to broadcast: over [time, height, width], or, where
            # frames are normalised one by one, over [height, width].
            ones = (1, 1, 1) if self.kind == "norm" else (1, 1)
            scale = TensorMapping((*self.path, "scale"), Layout.VECTOR, (self.inputs, *ones))
            yield f"{self.name}.gamma", scale
            return
        layout, sides = _KERNELS[self.kind]
        shape = (self.outputs, self.inputs, *sides)
        yield f"{self.name}.weight", TensorMapping((*self.path, "kernel"), layout, shape)
        yield f"{self.name}.bias", TensorMapping((*self.path, "bias"), Layout.SAME, (self.outputs,))


def vae_names(config: VAEConfig) -> dict[str, TensorMapping]:
    """The table of the official file, `Wan2.1_VAE.pth`."""
    return _names(config, _OFFICIAL)


def diffusers_vae_names(config: VAEConfig) -> dict[str, TensorMapping]:
    """The table of the diffusers layout, `vae/diffusion_pytorch_model.safetensors`."""
    return _names(config, _DIFFUSERS)


def _names(config: VAEConfig, dialect: _Dialect) -> dict[str, TensorMapping]:
    # The walk is in the order in which data flows: `flat` counts modules in that order.
    modules = (*_encoder(config, dialect), *_decoder(config, dialect))
    return dict(mapping for module in modules for mapping in module.mappings())


def _encoder(config: VAEConfig, dialect: _Dialect) -> Iterator[_Module]:
    chan, flat = config.base_channels, 0
    yield _Module(
        f"encoder.{dialect.conv_in}", ("encoder", "conv_in"), "conv", config.patch_channels, chan
    )
    for stage, out in enumerate(config.stage_channels):
        path = ("encoder", f"stage_{stage}")
        for index in range(config.residual_blocks):
            name = dialect.down_block.format(stage=stage, index=index, flat=flat)
            yield from _block(f"encoder.{name}", (*path, f"block_{index}"), chan, out, dialect)
            chan, flat = out, flat + 1
        if stage < config.stages - 1:
            name = "encoder." + dialect.down.format(stage=stage, flat=flat)
            yield _Module(f"{name}.resample.1", (*path, "down", "conv"), "conv2d", chan, chan)
            if config.temporal_downsample[stage]:
                time_conv = (*path, "down", "time_conv")
                yield _Module(f"{name}.time_conv", time_conv, "time_conv", chan, chan)
            flat += 1
    # Mean and log variance of the posterior.
    moments = 2 * config.latent_channels
    yield from _middle_and_exit("encoder", config.stage_channels[-1], chan, moments, dialect)
    yield _Module(dialect.to_moments, ("encoder", "to_moments"), "pointwise", moments, moments)


def _decoder(config: VAEConfig, dialect: _Dialect) -> Iterator[_Module]:
    latent, chan, flat = config.latent_channels, config.stage_channels[-1], 0
    yield _Module(dialect.from_latents, ("decoder", "from_latents"), "pointwise", latent, latent)
    yield _Module(f"decoder.{dialect.conv_in}", ("decoder", "conv_in"), "conv", latent, chan)
    for stage, out in enumerate(reversed(config.stage_channels)):
        path = ("decoder", f"stage_{stage}")
        # A decoder's stage has one block more than an encoder's.
        for index in range(config.residual_blocks + 1):
            name = dialect.up_block.format(stage=stage, index=index, flat=flat)
            yield from _block(f"decoder.{name}", (*path, f"block_{index}"), chan, out, dialect)
            chan, flat = out, flat + 1
        if stage < config.stages - 1:
            name = "decoder." + dialect.up.format(stage=stage, flat=flat)
            if config.temporal_downsample[::-1][stage]:
                # Twice the channels: one frame becomes two, which are then interleaved.
                time_conv = (*path, "up", "time_conv")
                yield _Module(f"{name}.time_conv", time_conv, "time_conv", chan, 2 * chan)
            # Upsampling halves the channels; the next stage's first block takes them to its own
            # width.
            yield _Module(f"{name}.resample.1", (*path, "up", "conv"), "conv2d", chan, chan // 2)
            chan, flat = chan // 2, flat + 1
    yield from _middle_and_exit(
        "decoder", config.stage_channels[-1], chan, config.patch_channels, dialect
    )


def _middle_and_exit(
    network: str, middle: int, chan: int, out: int, dialect: _Dialect
) -> Iterator[_Module]:
    """The bottleneck, `middle` channels wide, and the output head from `chan` to `out` channels."""
    before, attention, after = (f"{network}.{name}" for name in dialect.middle)
    path = (network, "middle")
    yield from _block(before, (*path, "block_0"), middle, middle, dialect)
    attend = (*path, "attention")
    yield _Module(f"{attention}.norm", (*attend, "norm"), "norm2d", middle, middle)
    yield _Module(f"{attention}.to_qkv", (*attend, "qkv"), "pointwise2d", middle, 3 * middle)
    yield _Module(f"{attention}.proj", (*attend, "out"), "pointwise2d", middle, middle)
    yield from _block(after, (*path, "block_1"), middle, middle, dialect)
    norm, conv = (f"{network}.{name}" for name in (dialect.exit_norm, dialect.exit_conv))
    yield _Module(norm, (network, "exit", "norm"), "norm", chan, chan)
    yield _Module(conv, (network, "exit", "conv"), "conv", chan, out)


def _block(name: str, path: ParamPath, chan: int, out: int, dialect: _Dialect) -> Iterator[_Module]:
    """A residual block from `chan` to `out` channels."""
    yield _Module(f"{name}.{dialect.norm_1}", (*path, "norm_1"), "norm", chan, chan)
    yield _Module(f"{name}.{dialect.conv_1}", (*path, "conv_1"), "conv", chan, out)
    yield _Module(f"{name}.{dialect.norm_2}", (*path, "norm_2"), "norm", out, out)
    yield _Module(f"{name}.{dialect.conv_2}", (*path, "conv_2"), "conv", out, out)
    if chan != out:
        yield _Module(f"{name}.{dialect.shortcut}", (*path, "shortcut"), "pointwise", chan, out)
