"""Options that several verbs share."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated, Literal

import jax.numpy as jnp
import tyro

from shotstream_jax.model import Model, open_model
from shotstream_jax.rollout.approximate import Approximation
from shotstream_jax.rollout.networks import approximated

Approximate = Annotated[tuple[Approximation, ...], tyro.conf.arg(metavar="NAME")]
"""Names of approximations, none by default."""

Dtype = Literal["auto", "float32", "bfloat16"]

_DTYPES = {"auto": None, "float32": jnp.float32, "bfloat16": jnp.bfloat16}


def open_named(
    source: str | pathlib.Path,
    dtype: Dtype,
    devices: int | None,
    *,
    text_on_host: bool = False,
    vae_apart: bool = False,
    approximate: Sequence[Approximation] = (),
) -> Model:
    """Open a model as the command line names it.

    The digest of one that films approximately is another: neither finishes a film of the other.

    Raises:
      ValueError: as `open_model`.
      OSError: as `open_model`.
    """
    model = open_model(
        source,
        dtype=_DTYPES[dtype],
        devices=devices,
        text_on_host=text_on_host,
        vae_apart=vae_apart,
    )
    if not approximate:
        return model
    networks = approximated(model.networks, approximate)
    digest = "+".join([model.digest, *networks.approximate])
    return dataclasses.replace(model, networks=networks, digest=digest)


def badge_of(model: Model) -> str:
    """What must not be overlooked wherever something of this model is shown."""
    said = ["random weights"] if model.weights == "random" else []
    if model.networks.approximate:
        said.append(f"approximate: {', '.join(model.networks.approximate)}")
    return "; ".join(said)
