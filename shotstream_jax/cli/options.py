"""Options that several verbs share."""

import pathlib
from typing import Annotated, Any, Literal

import tyro

from shotstream_jax.model import Model, open_model
from shotstream_jax.models.compute import FORMATS
from shotstream_jax.rollout.approximate import ApproximationName

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
