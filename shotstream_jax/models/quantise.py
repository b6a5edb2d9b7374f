"""Arrays in 8 bits: whole numbers, and one unit for each row of them along an axis.

Approximate: a row's numbers are rounded to 1/127 of the largest among them. Weights and caches are
held this way and widened where they are used, one layer at a time; the arithmetic does not change.
"""

from typing import Any

import jax
import jax.numpy as jnp

from shotstream_jax.pytree import pytree
from shotstream_jax.typing import Array, Float, Int, Params

_MOST = 127.0
_INPUTS = -2
"""The axis of a kernel that products sum over."""


@pytree
class Quantised:
    """An array in 8 bits.

    Attributes:
      int8: the numbers.
      unit: what one of them stands for, of length 1 along the axis that shares it.
    """

    int8: Int[Array, "*axes"]
    unit: Float[Array, "*#axes"]


def quantise(x: Float[Array, "*axes"], axis: int = -1) -> Quantised:
    """Round to 8 bits, with one unit for all numbers along an axis."""
    x = x.astype(jnp.float32)
    unit = jnp.maximum(jnp.max(jnp.abs(x), axis=axis, keepdims=True), 1e-12) / _MOST
    return Quantised(int8=jnp.round(x / unit).astype(jnp.int8), unit=unit)


def quantise_blocks(params: Params) -> Params:
    """A transformer whose blocks hold their kernels in 8 bits, one unit an output channel."""

    def one(path: Any, leaf: Array) -> Any:
        is_kernel = path[-1].key == "kernel"
        return quantise(leaf, _INPUTS) if is_kernel else leaf

    return {**params, "blocks": jax.tree_util.tree_map_with_path(one, params["blocks"])}


def widen(tree: Any, dtype: Any) -> Any:
    """All that is in 8 bits as an array again; other leaves as they are."""

    def one(leaf: Any) -> Any:
        return (leaf.int8 * leaf.unit).astype(dtype) if _is_quantised(leaf) else leaf

    return jax.tree.map(one, tree, is_leaf=_is_quantised)


def _is_quantised(leaf: Any) -> bool:
    return isinstance(leaf, Quantised)
