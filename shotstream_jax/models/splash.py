"""Flash attention on TPU: the Pallas kernel that JAX ships, over a prefix of the keys.

Source: jax.experimental.pallas.ops.tpu.splash_attention.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Layout, with_layout_constraint
from jax.experimental.pallas.ops.tpu import splash_attention

from shotstream_jax.typing import Array, Float, Index

Queries = Float[Array, "batch query head head_dim"]
Keys = Float[Array, "batch key head head_dim"]

# A tile is in whole rows of 128 lanes. With these limits its float32 logits take at most 2 MB of
# VMEM, which leaves room for queries, keys and values of the next tile, forward and backward.
_LANES, _BLOCK_KEYS, _MAX_BLOCK_QUERIES = 128, 512, 1024


def splash(q: Queries, k: Keys, v: Keys, which: Index, counts: tuple[int, ...]) -> Queries:
    """Softmax attention over the first `counts[which]` keys.

    One kernel a count, which skips the blocks that are masked whole; one of them runs.
    """
    queries, block_queries = q.shape[1], _query_block(q.shape[1])
    # The kernel does not scale logits. Queries are scaled in float32, rounded once.
    scaled = (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)
    padded = _pad(scaled, block_queries), _pad(k, _BLOCK_KEYS), _pad(v, _BLOCK_KEYS)
    # Through the `switch` the compiler does not see which layout the kernels want; without the
    # constraint it copies the whole cache into another one.
    heads_first = [_row_major(x.swapaxes(1, 2)) for x in padded]
    sizes = padded[0].shape[1], padded[1].shape[1]
    kernels = [_kernel(_PrefixMask(*sizes, count), q.shape[2], block_queries) for count in counts]
    mixed = jax.lax.switch(which, [jax.vmap(kernel) for kernel in kernels], *heads_first)
    return mixed.swapaxes(1, 2)[:, :queries]


def _query_block(queries: int) -> int:
    """The tile of queries (a multiple of 128, up to 1024) that pads least; the larger of equals."""
    sizes = range(_MAX_BLOCK_QUERIES, 0, -_LANES)
    return min(sizes, key=lambda block: -(-queries // block) * block)


def _pad(x: Keys, multiple: int) -> Float[Array, "batch padded head head_dim"]:
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % multiple), (0, 0), (0, 0)))


def _row_major(x: Array) -> Array:
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


class _PrefixMask(splash_attention.Mask):
    """Every query sees the first `count` keys.

    As an array (`NumpyMask`), the mask of a full cache would take 200 MB of host memory a count.
    """

    def __init__(self, queries: int, keys: int, count: int):
        self.sizes = queries, keys, count

    @property
    def shape(self) -> tuple[int, int]:
        return self.sizes[:2]

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        queries, keys = (np.arange(n)[part] for n, part in zip(self.shape, index, strict=True))
        return np.broadcast_to(keys < self.sizes[2], (queries.size, keys.size))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _PrefixMask) and self.sizes == other.sizes

    def __hash__(self) -> int:
        return hash(self.sizes)


def _kernel(
    mask: _PrefixMask, heads: int, block_queries: int
) -> Callable[..., Float[Array, "head query head_dim"]]:
    blocks = splash_attention.BlockSizes(
        block_q=block_queries,
        block_kv=_BLOCK_KEYS,
        block_kv_compute=_BLOCK_KEYS,
        block_q_dkv=block_queries,
        block_kv_dkv=_BLOCK_KEYS,
        block_kv_dkv_compute=_BLOCK_KEYS,
        block_q_dq=block_queries,
        block_kv_dq=_BLOCK_KEYS,
    )
    kernel: Any = splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([mask] * heads),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=1,
    )
    return kernel
