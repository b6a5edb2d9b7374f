"""Attention: one function with one backend a platform, and the patterns that are made of it.

    attend(q, k, v)             every query sees every key
    attend(q, k, v, prefix)     every query sees the first keys, as many as `prefix` says

Nothing else is needed: the cache is laid out so that the visible keys are a prefix, and block
causality is a loop over prefixes. A block of the transformer receives one of these patterns:

    block_causal               frames see their own level of frames and those before it; with a
                               single level, every frame sees every frame
    cached                     a chunk sees the cache's visible prefix, itself included
    cached_prefix_then_chunk   frames enter the cache, and a chunk that follows already sees them

Softmax is float32 in every backend.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from shotstream_jax.models.cache import CachedKeyValue, CacheSlot, KeyValue, Prefix
from shotstream_jax.models.compute import AttentionBackend, Compute
from shotstream_jax.models.quantise import Quantised, dequantise
from shotstream_jax.models.splash import Keys, Queries, splash
from shotstream_jax.sharding import sample_axes
from shotstream_jax.typing import Array, Float

Heads = Float[Array, "batch token head head_dim"]


AttentionKernel = Callable[[Queries, Keys, Keys, Prefix | None], Queries]

AttentionPattern = Callable[[Heads, KeyValue, CachedKeyValue | None], Heads]
"""Self-attention of queries to their own keys and values, and to one layer of a cache."""

# Attention logits that the XLA backend holds at once (256 MB in float32); longer queries go in
# pieces. A chunk of the tiny networks is far below, a full-size one would need 9 GB.
_XLA_LOGITS = 1 << 26


def attend(
    q: Queries,
    k: Keys,
    v: Keys,
    visible: Prefix | None = None,
    *,
    backend: AttentionBackend = "xla",
    mesh: Mesh | None = None,
) -> Queries:
    """Softmax attention over all keys, or over a visible prefix, scaled by head_dim^-1/2.

    `mesh` holds the devices that share the work; only the TPU kernel needs it.
    """
    # A count known at compile time is a slice, so no backend has to mask.
    if visible is not None and len(visible.counts) == 1:
        (count,) = visible.counts
        k, v, visible = k[:, :count], v[:, :count], None
    match backend:
        case "xla":
            return _xla_attention(q, k, v, visible)
        case "cudnn":
            return _cudnn_attention(q, k, v, visible)
        case "splash":
            return split_over_devices(_splash_attention, mesh)(q, k, v, visible)


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

    `levels` are token counts that add up to all tokens. Levels of 2, 3 and 3:

        query \ key   0 0 1 1 1 2 2 2
             0        x x . . . . . .
             1        x x x x x . . .
             2        x x x x x x x x

    Each level attends to a static prefix, so nothing is masked and no masked key is computed.

    Raises:
      ValueError: levels that do not add up to the tokens.
    """
    if sum(levels) != q.shape[1]:
        raise ValueError(f"Levels {list(levels)} hold {sum(levels)} tokens, not {q.shape[1]}.")
    outputs, start = [], 0
    for count in levels:
        end = start + count
        keys, values = k[:, :end], v[:, :end]
        outputs.append(attend(q[:, start:end], keys, values, backend=backend, mesh=mesh))
        start = end
    return jnp.concatenate(outputs, axis=1)


def block_causal(
    q: Heads,
    kv: KeyValue,
    cache: CachedKeyValue | None,
    *,
    levels: Sequence[int],
    compute: Compute,
) -> Heads:
    """Tokens come in levels of as many as `levels` says; no cache is read."""
    how = {"backend": compute.attention, "mesh": compute.mesh}
    return attend_levels(q, kv.key, kv.value, levels, **how)


def cached(
    q: Heads, kv: KeyValue, cache: CachedKeyValue | None, *, slot: CacheSlot, compute: Compute
) -> Heads:
    """Tokens see the cache's visible prefix, in which they stand themselves."""
    keys = _with_tokens(cache, kv, slot)
    how = {"backend": compute.attention, "mesh": compute.mesh}
    return attend(q, keys.key, keys.value, slot.visible, **how)


def cached_prefix_then_chunk(
    q: Heads,
    kv: KeyValue,
    cache: CachedKeyValue | None,
    *,
    prefix: CacheSlot,
    chunk: CacheSlot,
    tokens: int,
    compute: Compute,
) -> Heads:
    """The first `tokens` enter the cache and see their prefix; then the rest, which see them."""
    first, rest = (
        KeyValue(key=kv.key[:, part], value=kv.value[:, part])
        for part in (slice(tokens), slice(tokens, None))
    )
    prefix_mixed = cached(q[:, :tokens], first, cache, slot=prefix, compute=compute)
    # The compiler finds that `cached` has made the same copy already.
    filled = _with_tokens(cache, first, prefix)
    chunk_mixed = cached(q[:, tokens:], rest, filled, slot=chunk, compute=compute)
    return jnp.concatenate([prefix_mixed, chunk_mixed], axis=1)


def split_over_devices(kernel: AttentionKernel, mesh: Mesh | None) -> AttentionKernel:
    """A kernel that every device runs on its own heads, and on its own samples where they divide.

    The compiler cannot split a kernel by itself. Heads and samples are independent of one another.
    """
    if mesh is None or mesh.size == 1:
        return kernel

    def on_each(q: Queries, k: Keys, v: Keys, prefix: Prefix | None) -> Queries:
        spec = PartitionSpec(
            sample_axes(q.shape[0], mesh),
            None,
            None if q.shape[2] % mesh.shape["tensor"] else "tensor",
        )
        split = jax.shard_map(
            kernel,
            mesh=mesh,
            in_specs=(spec, spec, spec, PartitionSpec()),
            out_specs=spec,
            # The Pallas kernel does not say over which axes its output varies.
            check_vma=False,
        )
        return split(q, k, v, prefix)

    return on_each


def _with_tokens(cache: CachedKeyValue | None, kv: KeyValue, slot: CacheSlot) -> KeyValue:
    """A copy of one layer of a cache, with new keys and values in their slot."""
    if cache is None:
        raise TypeError("A cached attention pattern needs the layer's cache, and there is none.")

    def put(into: Array | Quantised, new: Array) -> Array:
        # Inside the layer loop, so that of an 8-bit cache only one layer at a time is full size.
        wide = dequantise(into).astype(new.dtype)
        return jax.lax.dynamic_update_slice_in_dim(wide, new, slot.start, axis=1)

    return KeyValue(key=put(cache.key, kv.key), value=put(cache.value, kv.value))


def _xla_attention(q: Queries, k: Keys, v: Keys, prefix: Prefix | None) -> Queries:
    """Plain attention that any platform compiles, long queries in pieces of bounded memory."""
    if prefix is not None:
        branches = [
            lambda q, k, v, count=count: _xla_attention(q, k[:, :count], v[:, :count], None)
            for count in prefix.counts
        ]
        return jax.lax.switch(prefix.which, branches, q, k, v)
    batch, queries, heads, head_dim = q.shape
    # The fewest pieces within the limit that divide the queries evenly.
    pieces = -(-batch * queries * heads * k.shape[1] // _XLA_LOGITS)
    while queries % pieces:
        pieces += 1
    if pieces == 1:
        return _softmax_attention(q, k, v)
    split = q.reshape(batch, pieces, queries // pieces, heads, head_dim).swapaxes(0, 1)
    mixed = jax.lax.map(lambda piece: _softmax_attention(piece, k, v), split)
    return mixed.swapaxes(0, 1).reshape(q.shape)


def _softmax_attention(q: Queries, k: Keys, v: Keys) -> Queries:
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits * q.shape[-1] ** -0.5, axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def _cudnn_attention(q: Queries, k: Keys, v: Keys, prefix: Prefix | None) -> Queries:
    """Flash attention of cuDNN, on NVIDIA GPUs, in 16-bit formats."""
    if prefix is None:
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    # A padding mask: cuDNN takes lengths at run time, for queries and keys alike.
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        query_seq_lengths=jnp.full((q.shape[0],), q.shape[1], jnp.int32),
        key_value_seq_lengths=jnp.full((q.shape[0],), prefix.count, jnp.int32),
        implementation="cudnn",
    )


def _splash_attention(q: Queries, k: Keys, v: Keys, prefix: Prefix | None) -> Queries:
    """The Pallas flash kernel for TPU."""
    if prefix is None:
        return splash(q, k, v, 0, (k.shape[1],))
    return splash(q, k, v, prefix.which, prefix.counts)
