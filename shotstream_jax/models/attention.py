"""Attention: one function, one backend a platform.

    attend(q, k, v)                 every query sees every key
    attend(q, k, v, kv_length)      every query sees the first `kv_length` keys

Nothing else is needed: the cache is laid out so that what may be seen is a prefix, and block
causality is a loop over prefixes (`attend_levels`). Softmax is float32 in every backend.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.sharding import Mesh, PartitionSpec

from shotstream_jax.models.compute import AttentionBackend
from shotstream_jax.typing import Array, Float, Int

Queries = Float[Array, "batch query head head_dim"]
Keys = Float[Array, "batch key head head_dim"]
Length = Int[Array, ""] | int | None
Attention = Callable[[Queries, Keys, Keys, Length], Queries]

_XLA_LOGITS = 1 << 26
"""Attention logits that the XLA backend holds at once; longer queries go in pieces."""

_SPLASH_KEYS = 512
"""Keys in one tile of the TPU kernel."""


def attend(
    q: Queries,
    k: Keys,
    v: Keys,
    kv_length: Length = None,
    *,
    backend: AttentionBackend = "xla",
    mesh: Mesh | None = None,
) -> Queries:
    """Softmax attention over keys, or over their first `kv_length`, scaled by head_dim^-1/2.

    `mesh` are the devices that share the work, which the TPU kernel must be told.
    """
    if isinstance(kv_length, int):
        k, v, kv_length = k[:, :kv_length], v[:, :kv_length], None
    match backend:
        case "xla":
            return _xla_attention(q, k, v, kv_length)
        case "cudnn":
            return _cudnn_attention(q, k, v, kv_length)
        case "splash":
            return split_over_devices(_splash_attention, mesh)(q, k, v, kv_length)


def attend_levels(
    q: Queries,
    k: Keys,
    v: Keys,
    levels: Sequence[int],
    *,
    backend: AttentionBackend = "xla",
    mesh: Mesh | None = None,
) -> Queries:
    r"""Block-causal self-attention: tokens of a level see that level and all before it.

    `levels` are the token counts, in order, that the tokens are made up of. Levels of 2, 3, 3:

        query \ key   0 0 1 1 1 2 2 2
             0        x x . . . . . .
             1        x x x x x . . .
             2        x x x x x x x x

    Each level attends to a static prefix, so nothing is masked and nothing is wasted.

    Raises:
      ValueError: levels that do not add up to the tokens.
    """
    if sum(levels) != q.shape[1]:
        raise ValueError(f"Levels {list(levels)} hold {sum(levels)} tokens, not {q.shape[1]}.")
    outputs, start = [], 0
    for count in levels:
        end = start + count
        seen = k[:, :end], v[:, :end]
        outputs.append(attend(q[:, start:end], *seen, backend=backend, mesh=mesh))
        start = end
    return jnp.concatenate(outputs, axis=1)


def split_over_devices(kernel: Attention, mesh: Mesh | None) -> Attention:
    """A kernel that every device runs on its own heads, and its own samples where they divide.

    The compiler cannot split a kernel by itself. Heads and samples do not look at one another.
    """
    if mesh is None or mesh.size == 1:
        return kernel

    def on_each(q: Queries, k: Keys, v: Keys, kv_length: Length) -> Queries:
        samples = [axis for axis in ("data", "fsdp") if mesh.shape[axis] > 1]
        holders = math.prod(mesh.shape[axis] for axis in samples)
        spec = PartitionSpec(None if q.shape[0] % holders else tuple(samples), None, "tensor")
        length = jnp.asarray(k.shape[1] if kv_length is None else kv_length, jnp.int32)
        split = jax.shard_map(
            kernel,
            mesh=mesh,
            in_specs=(spec, spec, spec, PartitionSpec()),
            out_specs=spec,
            check_vma=False,
        )
        return split(q, k, v, length)

    return on_each


def _xla_attention(q: Queries, k: Keys, v: Keys, kv_length: Length) -> Queries:
    """Plain attention that any platform compiles, long queries in pieces of bounded memory."""
    batch, queries, heads, head_dim = q.shape
    pieces = -(-batch * queries * heads * k.shape[1] // _XLA_LOGITS)
    while queries % pieces:
        pieces += 1
    if pieces == 1:
        return _softmax_attention(q, k, v, kv_length)
    split = q.reshape(batch, pieces, queries // pieces, heads, head_dim).swapaxes(0, 1)
    mixed = jax.lax.map(lambda piece: _softmax_attention(piece, k, v, kv_length), split)
    return mixed.swapaxes(0, 1).reshape(q.shape)


def _softmax_attention(q: Queries, k: Keys, v: Keys, kv_length: Length) -> Queries:
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
    logits = logits * q.shape[-1] ** -0.5
    if kv_length is not None:
        logits = jnp.where(jnp.arange(k.shape[1]) < kv_length, logits, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def _cudnn_attention(q: Queries, k: Keys, v: Keys, kv_length: Length) -> Queries:
    """Flash attention of cuDNN, on NVIDIA GPUs."""
    if kv_length is None:
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        query_seq_lengths=jnp.full((q.shape[0],), q.shape[1], jnp.int32),
        key_value_seq_lengths=jnp.full((q.shape[0],), kv_length, jnp.int32),
        implementation="cudnn",
    )


def _splash_attention(q: Queries, k: Keys, v: Keys, kv_length: Length) -> Queries:
    """The Pallas flash kernel for TPU; keys beyond the length are another segment."""
    queries, keys = q.shape[1], k.shape[1]
    block_q = _query_block(queries)
    q, k, v = _pad_tokens(q, block_q), _pad_tokens(k, _SPLASH_KEYS), _pad_tokens(v, _SPLASH_KEYS)
    kernel = _splash_kernel(q.shape[1], k.shape[1], q.shape[2], block_q)
    seen = keys if kv_length is None else kv_length
    segments = splash_attention.SegmentIds(
        q=jnp.zeros(q.shape[1], jnp.int32),
        kv=(jnp.arange(k.shape[1]) >= seen).astype(jnp.int32),
    )
    scaled = (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)
    heads_first = [x.swapaxes(1, 2) for x in (scaled, k, v)]
    mixed: Array = jax.vmap(kernel, in_axes=(0, 0, 0, None))(*heads_first, segments)
    return mixed.swapaxes(1, 2)[:, :queries]


def _splash_kernel(
    queries: int, keys: int, heads: int, block_q: int
) -> Callable[..., Float[Array, "head query head_dim"]]:
    blocks = splash_attention.BlockSizes(
        block_q=block_q,
        block_kv=_SPLASH_KEYS,
        block_kv_compute=_SPLASH_KEYS,
        block_q_dkv=block_q,
        block_kv_dkv=_SPLASH_KEYS,
        block_kv_dkv_compute=_SPLASH_KEYS,
        block_q_dq=block_q,
        block_kv_dq=_SPLASH_KEYS,
    )
    everything = splash_attention.FullMask((queries, keys))
    kernel: Any = splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([everything] * heads),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=1,
    )
    return kernel


def _query_block(queries: int) -> int:
    """The tile of queries (a multiple of 128, up to 1024) that pads least."""
    return min(range(1024, 0, -128), key=lambda block: -(-queries // block) * block)


def _pad_tokens(x: Keys, multiple: int) -> Float[Array, "batch padded head head_dim"]:
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % multiple), (0, 0), (0, 0)))
