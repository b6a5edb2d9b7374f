"""Options that several verbs share."""

import pathlib
from typing import Literal

import jax.numpy as jnp

from shotstream_jax.model import Model, open_model

Dtype = Literal["auto", "float32", "bfloat16"]

_DTYPES = {"auto": None, "float32": jnp.float32, "bfloat16": jnp.bfloat16}


def open_named(
    source: str | pathlib.Path, dtype: Dtype, devices: int | None, *, text_on_host: bool = False
) -> Model:
    """Open a model as the command line names it.

    Raises:
      ValueError: as `open_model`.
      OSError: as `open_model`.
    """
    return open_model(source, dtype=_DTYPES[dtype], devices=devices, text_on_host=text_on_host)
