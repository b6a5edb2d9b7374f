"""Symmetric int8 quantisation, one float32 scale for each row along an axis.

Approximate: a row's numbers are rounded to 1/127 of the largest among them. Weights and caches are
stored this way and dequantised where they are used, one layer at a time; products and sums are
those of the unquantised network.
"""

from typing import Any

import jax
import jax.numpy as jnp

from shotstream_jax.pytree import pytree
from shotstream_jax.typing import Array, Float, Int, Params

# Not 128: with -127 .. 127 the range is symmetric and zero is exact.
INT8_MAX = 127.0

# A row of zeros has scale 0, which would divide 0 by 0.
_SMALLEST_MAX = 1e-12

# A kernel is [..., inputs, outputs]; one scale an output channel can leave the sum over the inputs.
_INPUT_AXIS = -2


@pytree
class Quantised:
    """An array in 8 bits: `int8 * scale`.

    Attributes:
      int8: whole numbers in [-127, 127].
      scale: float32, of length 1 along the axis that shares it.
    """

    int8: Int[Array, "*axes"]
    scale: Float[Array, "*#axes"]


def quantise(x: Float[Array, "*axes"], axis: int = -1) -> Quantised:
    """Round to 8 bits, with one scale for all numbers along `axis`."""
    x = x.astype(jnp.float32)
    scale = jnp.maximum(jnp.max(jnp.abs(x), axis=axis, keepdims=True), _SMALLEST_MAX) / INT8_MAX
    return Quantised(int8=jnp.round(x / scale).astype(jnp.int8), scale=scale)


def quantise_blocks(params: Params) -> Params:
    """A transformer whose blocks hold their kernels in 8 bits, one scale an output channel."""

    def one(path: Any, leaf: Array) -> Any:
        is_kernel = path[-1].key == "kernel"
        return quantise(leaf, _INPUT_AXIS) if is_kernel else leaf

    return {**params, "blocks": jax.tree_util.tree_map_with_path(one, params["blocks"])}


def dequantise(tree: Any) -> Any:
    """The same tree with plain float32 arrays in place of quantised ones; other leaves stay."""

    def one(leaf: Any) -> Any:
        return leaf.int8 * leaf.scale if _is_quantised(leaf) else leaf

    return jax.tree.map(one, tree, is_leaf=_is_quantised)


def _is_quantised(leaf: Any) -> bool:
    return isinstance(leaf, Quantised)
