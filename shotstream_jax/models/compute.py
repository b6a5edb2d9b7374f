"""How a network is computed, not what it computes: static arguments of its programs."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

AttentionBackend = Literal["xla", "cudnn", "splash"]
Remat = Literal["none", "dots", "full"]

FORMATS: Mapping[str, Any] = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
"""Number formats by their names in options and configs."""

# The TPU kernel is tiled in 128 lanes and takes heads of whole tiles only.
_SPLASH_HEAD_DIM = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
    """Number format, attention backend and rematerialisation of one program.

    Attributes:
      dtype: format of activations and matrix products; norms, rotations, softmax and modulation
        are float32 in any case.
      attention: backend of self- and cross-attention (see `attention.py`).
      remat: what the backward pass recomputes: nothing, all but matrix products, or each block.
      mesh: devices that share the work; read by attention kernels alone, which the compiler cannot
        split by itself.
    """

    dtype: Any = jnp.float32
    attention: AttentionBackend = "xla"
    remat: Remat = "none"
    mesh: Mesh | None = None


def default_compute(
    head_dim: int, dtype: Any = None, platform: str | None = None, mesh: Mesh | None = None
) -> Compute:
    """The fast way on a platform: `cpu`, `gpu` or `tpu`, by default this machine's.

    The default dtype is bfloat16 on accelerators and float32 on a CPU.
    """
    platform = platform or jax.default_backend()
    if dtype is None:
        dtype = jnp.float32 if platform == "cpu" else jnp.bfloat16
    attention: AttentionBackend = "xla"
    # cuDNN has flash attention for 16-bit inputs only; splash is kept to the same for one rule.
    if jnp.dtype(dtype) == jnp.bfloat16:
        if platform == "gpu":
            attention = "cudnn"
        elif platform == "tpu" and head_dim % _SPLASH_HEAD_DIM == 0:
            attention = "splash"
    return Compute(dtype=dtype, attention=attention, mesh=mesh)
