"""How a network is computed, as opposed to what it computes: static arguments of its programs."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

AttentionBackend = Literal["xla", "cudnn", "splash"]
Remat = Literal["none", "dots", "full"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
    """Number format, attention backend and rematerialisation of one program.

    Attributes:
      dtype: format of activations and matrix products; norms, rotations, softmax and modulation
        are float32 inside whatever this is.
      attention: backend of self- and cross-attention (see `attention.py`).
      remat: what the backward pass recomputes: nothing, all but matrix products, or each block.
    """

    dtype: Any = jnp.float32
    attention: AttentionBackend = "xla"
    remat: Remat = "none"


def default_compute(dtype: Any = None, platform: str | None = None) -> Compute:
    """The fast way on a platform (`cpu`, `gpu` or `tpu`; this machine's when not named).

    Accelerators compute in bfloat16 unless told otherwise, a CPU in float32.
    """
    platform = platform or jax.default_backend()
    if dtype is None:
        dtype = jnp.float32 if platform == "cpu" else jnp.bfloat16
    kernels: dict[str, AttentionBackend] = {"gpu": "cudnn", "tpu": "splash"}
    takes_kernel = jnp.dtype(dtype) == jnp.bfloat16
    return Compute(dtype=dtype, attention=kernels.get(platform, "xla") if takes_kernel else "xla")
