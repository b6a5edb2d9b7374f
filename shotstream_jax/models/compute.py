"""How a network is computed, as opposed to what it computes: static arguments of its programs."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

AttentionBackend = Literal["xla", "cudnn", "splash"]
Remat = Literal["none", "dots", "full"]

FORMATS: Mapping[str, Any] = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
"""Number formats by the names that options and configs have for them."""

_SPLASH_HEAD_DIM = 128
"""Channels of a head in whole multiples of which the TPU kernel is tiled."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
    """Number format, attention backend and rematerialisation of one program.

    Attributes:
      dtype: format of activations and matrix products; norms, rotations, softmax and modulation
        are float32 inside whatever this is.
      attention: backend of self- and cross-attention (see `attention.py`).
      remat: what the backward pass recomputes: nothing, all but matrix products, or each block.
      mesh: devices that share the work; only attention kernels, which the compiler cannot split by
        itself, look at it.
    """

    dtype: Any = jnp.float32
    attention: AttentionBackend = "xla"
    remat: Remat = "none"
    mesh: Mesh | None = None


def default_compute(
    head_dim: int, dtype: Any = None, platform: str | None = None, mesh: Mesh | None = None
) -> Compute:
    """The fast way on a platform (`cpu`, `gpu` or `tpu`; this machine's when not named).

    Accelerators compute in bfloat16 unless told otherwise, a CPU in float32. The kernel of a TPU
    takes heads in whole tiles.
    """
    platform = platform or jax.default_backend()
    if dtype is None:
        dtype = jnp.float32 if platform == "cpu" else jnp.bfloat16
    attention: AttentionBackend = "xla"
    if jnp.dtype(dtype) == jnp.bfloat16:
        if platform == "gpu":
            attention = "cudnn"
        elif platform == "tpu" and head_dim % _SPLASH_HEAD_DIM == 0:
            attention = "splash"
    return Compute(dtype=dtype, attention=attention, mesh=mesh)
