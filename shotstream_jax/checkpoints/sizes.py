"""The sizes of a network, from the shapes of its tensors.

Signature keys are the names, by role, of the tensors whose shapes determine the sizes. What shapes
do not show is taken from the settings beside the file (its `config.json`).
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from shotstream_jax.models.configs import DiTConfig, TextEncoderConfig, VAEConfig

SignatureKeys = Mapping[str, str]
Shapes = Mapping[str, tuple[int, ...]]
StoredSettings = Mapping[str, Any]

# 1.3B: 1536 / 12; 14B: 5120 / 40. A kernel's shape holds heads x head_dim as one number.
_HEAD_DIM = 128
"""Channels of an attention head in every official transformer."""

# Published transformers have 40 layers at most; a thousand are taken (model_config.py).
_MOST_DIGITS = 3


def dit_sizes(shapes: Shapes, signature_keys: SignatureKeys, settings: StoredSettings) -> DiTConfig:
    """Sizes of a transformer; signature keys `patch`, `text`, `time`, `ffn`, `layer`.

    Raises:
      ValueError: a signature key that is missing or has another number of axes, or a number of
        heads that follows neither from the settings nor from the official head size.
    """
    # Official shapes: a convolution is [out, in, time, height, width], a linear layer [out, in].
    dim, chan, _, rows, cols = _shape(shapes, signature_keys["patch"], axes=5)
    return DiTConfig(
        dim=dim,
        layers=_count(shapes, signature_keys["layer"]),
        heads=_heads(dim, settings),
        ffn_dim=_shape(shapes, signature_keys["ffn"], axes=2)[0],
        freq_dim=_shape(shapes, signature_keys["time"], axes=2)[1],
        text_dim=_shape(shapes, signature_keys["text"], axes=2)[1],
        # No tensor has an axis of text positions: cross-attention takes any number.
        text_tokens=_whole(settings, "text_len") or DiTConfig.text_tokens,
        latent_channels=chan,
        patch=(rows, cols),
    )


def vae_sizes(shapes: Shapes, signature_keys: SignatureKeys, settings: StoredSettings) -> VAEConfig:
    """Sizes of an autoencoder; signature keys `conv_in`, `latent`, `block`, `down`, `time_down`.

    Raises:
      ValueError: a signature key that is missing or has another number of axes, or stages that do
        not make an autoencoder.
    """
    base, colours, *_ = _shape(shapes, signature_keys["conv_in"], axes=5)
    if not base or not colours:
        raise ValueError(f"{signature_keys['conv_in']} has an axis of size 0; fetch it again.")
    widths, temporal = _stages(shapes, signature_keys)
    return VAEConfig(
        base_channels=base,
        latent_channels=_shape(shapes, signature_keys["latent"], axes=5)[0],
        multipliers=tuple(stage[0] // base for stage in widths),
        residual_blocks=len(widths[0]),
        temporal_downsample=tuple(temporal),
        # RGB times the pixels of a square patch.
        patch_size=math.isqrt(colours // 3),
        latent_mean=_floats(settings, "latents_mean") or VAEConfig.latent_mean,
        latent_std=_floats(settings, "latents_std") or VAEConfig.latent_std,
    )


def text_sizes(
    shapes: Shapes, signature_keys: SignatureKeys, settings: StoredSettings
) -> TextEncoderConfig:
    """Sizes of a text encoder; signature keys `embedding`, `query`, `ffn`, `bias`, `layer`.

    Raises:
      ValueError: a signature key that is missing or has another number of axes.
    """
    vocab, dim = _shape(shapes, signature_keys["embedding"], axes=2)
    buckets, heads = _shape(shapes, signature_keys["bias"], axes=2)
    return TextEncoderConfig(
        vocab=vocab,
        dim=dim,
        attention_dim=_shape(shapes, signature_keys["query"], axes=2)[0],
        ffn_dim=_shape(shapes, signature_keys["ffn"], axes=2)[0],
        heads=heads,
        layers=_count(shapes, signature_keys["layer"]),
        buckets=buckets,
        # Distances share buckets by formula: no tensor shows where the last one begins.
        max_distance=_whole(settings, "relative_attention_max_distance")
        or TextEncoderConfig.max_distance,
    )


def described_width(settings: StoredSettings) -> int | None:
    """Width of the transformer that settings describe, `None` if they do not say.

    Raises:
      ValueError: a setting that is no whole number above 0.
    """
    heads = _whole(settings, "num_heads") or _whole(settings, "num_attention_heads")
    head_dim = _whole(settings, "attention_head_dim")
    return _whole(settings, "dim") or (heads and head_dim and heads * head_dim)


def _shape(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    if name not in shapes:
        raise ValueError(
            f"There is no tensor {name}, which sizes are read from; fetch the file again."
        )
    if len(shapes[name]) != axes:
        raise ValueError(
            f"{name} has shape {shapes[name]}, and {axes} axes were expected; "
            "this is another network, or the file is damaged."
        )
    return shapes[name]


def _count(shapes: Shapes, template: str) -> int:
    """One more than the largest layer number: a missing layer is reported, not skipped."""
    before, after = template.split("{}")
    numbers = [
        name.removeprefix(before).removesuffix(after)
        for name in shapes
        if name.startswith(before) and name.endswith(after)
    ]
    numbers = [number for number in numbers if number.isdecimal()]
    # Before it is a number: a table of as many layers as a name claims would fill the memory.
    long = [number for number in numbers if len(number) > _MOST_DIGITS]
    if long:
        raise ValueError(
            f"There is a tensor {template.format(long[0][:20])}, of more layers than any model has."
        )
    return 1 + max(map(int, numbers), default=-1)


def _stages(shapes: Shapes, signature_keys: SignatureKeys) -> tuple[list[list[int]], list[bool]]:
    """Widths of the residual blocks of each stage, and whether time halves after each but one."""
    # Official names count blocks and downsamplers straight through: a downsampler ends a stage.
    widths: list[list[int]] = [[]]
    temporal: list[bool] = []
    for index in itertools.count():
        block = signature_keys["block"].format(index)
        if block in shapes:
            widths[-1].append(_shape(shapes, block, axes=5)[0])
        elif signature_keys["down"].format(index) in shapes and widths[-1]:
            temporal.append(signature_keys["time_down"].format(index) in shapes)
            widths.append([])
        else:
            if not widths[-1]:
                _shape(shapes, block, axes=5)
            break
    return widths, temporal


def _heads(dim: int, settings: StoredSettings) -> int:
    heads = _whole(settings, "num_heads") or _whole(settings, "num_attention_heads")
    # Settings that describe another model, such as the base that a file is read with, do not
    # count.
    if heads and described_width(settings) in (None, dim):
        return heads
    # Without settings the official head size is the only hint; a guess would film noise.
    if dim % _HEAD_DIM:
        width = described_width(settings)
        described = f"config.json describes a transformer {width} wide and the weights are {dim}. "
        raise ValueError(
            f"{described if width else ''}Width {dim} is no multiple of the official head size "
            f"{_HEAD_DIM}; put the config.json of this model (dim {dim}, num_heads) beside its "
            "weights."
        )
    return dim // _HEAD_DIM


def _whole(settings: StoredSettings, key: str) -> int | None:
    number = settings.get(key)
    if number is not None and (type(number) is not int or number < 1):
        raise ValueError(f"config.json has {key} {number!r}; it must be a whole number above 0.")
    return number


def _floats(settings: StoredSettings, key: str) -> tuple[float, ...] | None:
    numbers = settings.get(key)
    if numbers is None:
        return None
    if not isinstance(numbers, list) or not all(isinstance(n, int | float) for n in numbers):
        raise ValueError(f"config.json has {key} {numbers!r}; it must be a list of numbers.")
    return tuple(map(float, numbers))
