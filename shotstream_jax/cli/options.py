"""Options that several verbs share."""

import dataclasses
import pathlib
from typing import Annotated, Any, Literal

import tyro

from shotstream_jax.model import Model, open_model
from shotstream_jax.model_config import ModelConfig
from shotstream_jax.models.compute import FORMATS
from shotstream_jax.presets import film_defaults
from shotstream_jax.rollout.approximate import ApproximationName
from shotstream_jax.story import StoryFile, overridden, read_story, with_model_defaults

Approximate = Annotated[tuple[ApproximationName, ...], tyro.conf.arg(metavar="NAME")]
"""Names of approximations, none by default."""

LoRAFiles = Annotated[
    tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FILE[:STRENGTH]")
]
"""LoRAs to add to the transformer, one an option: a second `--lora` must not replace the first."""

Dtype = Literal["auto", "float32", "bfloat16"]


def open_named(source: str | pathlib.Path, dtype: Dtype, devices: int | None, **how: Any) -> Model:
    """Open a model by a command's options; `how` are further arguments of `open_model`.

    Raises:
      ValueError: as `open_model`.
      OSError: as `open_model`.
    """
    # "auto" is no format: `open_model` chooses by the device.
    return open_model(source, dtype=FORMATS.get(dtype), devices=devices, **how)


def read_story_for(
    path: str,
    config: ModelConfig,
    *,
    size: tuple[int, int] | None = None,
    seed: int | None = None,
    fps: int | None = None,
    chunks: int | None = None,
) -> StoryFile:
    """Read a story as a model films it: what its file does not say is the model's own.

    Args:
      path: a story file, or `-` for standard input.
      config: of the model.
      size: height and width in place of the story's.
      seed: of every shot, in place of the story's.
      fps: in place of the story's.
      chunks: of every shot, in place of the story's.

    Raises:
      StoryError: a file that is no story, or a setting that no story may have.
    """
    file = with_model_defaults(read_story(path), film_defaults(config))
    story = overridden(file.story, size=size, seed=seed, fps=fps, chunks=chunks)
    return dataclasses.replace(file, story=story)
