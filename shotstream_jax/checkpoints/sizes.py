"""The sizes of a network, read off the shapes of its tensors.

Each function is told its landmarks: what the tensors that give the sizes away are called in a
file. Whatever shapes cannot show is taken from the settings beside the file (its `config.json`).
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.text_encoder import TextEncoderConfig
from shotstream_jax.models.vae_config import VAEConfig

Landmarks = Mapping[str, str]
Shapes = Mapping[str, tuple[int, ...]]
Settings = Mapping[str, Any]

_HEAD_DIM = 128
"""Channels of an attention head in every official transformer."""


def dit_sizes(shapes: Shapes, landmarks: Landmarks, settings: Settings) -> DiTConfig:
    """Sizes of a transformer; landmarks `patch`, `text`, `time`, `ffn`, `layer`.

    Raises:
      ValueError: a landmark that is missing or has another number of axes, or heads that neither
        the settings nor the official head size tell.
    """
    dim, chan, _, rows, cols = _shape(shapes, landmarks["patch"], axes=5)
    return DiTConfig(
        dim=dim,
        layers=_count(shapes, landmarks["layer"]),
        heads=_heads(dim, settings),
        ffn_dim=_shape(shapes, landmarks["ffn"], axes=2)[0],
        freq_dim=_shape(shapes, landmarks["time"], axes=2)[1],
        text_dim=_shape(shapes, landmarks["text"], axes=2)[1],
        text_tokens=_whole(settings, "text_len") or DiTConfig.text_tokens,
        latent_channels=chan,
        patch=(rows, cols),
    )


def vae_sizes(shapes: Shapes, landmarks: Landmarks, settings: Settings) -> VAEConfig:
    """Sizes of an autoencoder; landmarks `conv_in`, `latent`, `block`, `down`, `time_down`.

    Raises:
      ValueError: a landmark that is missing or has another number of axes, or stages that do not
        make an autoencoder.
    """
    base, colours, *_ = _shape(shapes, landmarks["conv_in"], axes=5)
    widths, temporal = _stages(shapes, landmarks)
    return VAEConfig(
        base_channels=base,
        latent_channels=_shape(shapes, landmarks["latent"], axes=5)[0],
        multipliers=tuple(stage[0] // base for stage in widths),
        residual_blocks=len(widths[0]),
        temporal_downsample=tuple(temporal),
        patch_size=math.isqrt(colours // 3),
        latent_mean=_floats(settings, "latents_mean") or VAEConfig.latent_mean,
        latent_std=_floats(settings, "latents_std") or VAEConfig.latent_std,
    )


def text_sizes(shapes: Shapes, landmarks: Landmarks, settings: Settings) -> TextEncoderConfig:
    """Sizes of a text encoder; landmarks `embedding`, `query`, `ffn`, `bias`, `layer`.

    Raises:
      ValueError: a landmark that is missing or has another number of axes.
    """
    del settings
    vocab, dim = _shape(shapes, landmarks["embedding"], axes=2)
    buckets, heads = _shape(shapes, landmarks["bias"], axes=2)
    return TextEncoderConfig(
        vocab=vocab,
        dim=dim,
        attention_dim=_shape(shapes, landmarks["query"], axes=2)[0],
        ffn_dim=_shape(shapes, landmarks["ffn"], axes=2)[0],
        heads=heads,
        layers=_count(shapes, landmarks["layer"]),
        buckets=buckets,
    )


def _shape(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    if name not in shapes:
        raise ValueError(
            f"There is no tensor {name}, which would tell sizes; fetch the file again."
        )
    if len(shapes[name]) != axes:
        raise ValueError(
            f"{name} has shape {shapes[name]}, and {axes} axes were expected; "
            "this is another network, or the file is damaged."
        )
    return shapes[name]


def _count(shapes: Shapes, template: str) -> int:
    """One more than the largest layer: a layer missing in between shall be missed, not skipped."""
    before, after = template.split("{}")
    numbers = [
        name.removeprefix(before).removesuffix(after)
        for name in shapes
        if name.startswith(before) and name.endswith(after)
    ]
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)


def _stages(shapes: Shapes, landmarks: Landmarks) -> tuple[list[list[int]], list[bool]]:
    """Widths of the residual blocks of each stage, and whether time halves after each but one."""
    widths: list[list[int]] = [[]]
    temporal: list[bool] = []
    for index in itertools.count():
        block = landmarks["block"].format(index)
        if block in shapes:
            widths[-1].append(_shape(shapes, block, axes=5)[0])
        elif landmarks["down"].format(index) in shapes and widths[-1]:
            temporal.append(landmarks["time_down"].format(index) in shapes)
            widths.append([])
        else:
            if not widths[-1]:
                _shape(shapes, block, axes=5)
            break
    return widths, temporal


def _heads(dim: int, settings: Settings) -> int:
    heads = _whole(settings, "num_heads") or _whole(settings, "num_attention_heads")
    head_dim = _whole(settings, "attention_head_dim")
    described = _whole(settings, "dim") or (heads and head_dim and heads * head_dim)
    # Settings that describe another model, such as the base that a file is read with, do not count.
    if heads and described in (None, dim):
        return heads
    if dim % _HEAD_DIM:
        raise ValueError(
            f"Width {dim} is no multiple of the official head size {_HEAD_DIM}; put the "
            f"config.json of this model (dim {dim}, num_heads) beside its weights."
        )
    return dim // _HEAD_DIM


def _whole(settings: Settings, key: str) -> int | None:
    number = settings.get(key)
    if number is not None and (not isinstance(number, int) or number < 1):
        raise ValueError(f"config.json has {key} {number!r}; it must be a whole number above 0.")
    return number


def _floats(settings: Settings, key: str) -> tuple[float, ...] | None:
    numbers = settings.get(key)
    if numbers is None:
        return None
    if not isinstance(numbers, list) or not all(isinstance(n, int | float) for n in numbers):
        raise ValueError(f"config.json has {key} {numbers!r}; it must be a list of numbers.")
    return tuple(map(float, numbers))
