"""Attention: one function, one backend a platform.

    attend(q, k, v)             every query sees every key
    attend(q, k, v, prefix)     every query sees the first keys, as many as `prefix` says

Nothing else is needed: the cache is laid out so that what may be seen is a prefix, and block
causality is a loop over prefixes (`attend_levels`). Softmax is float32 in every backend.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from shotstream_jax.models.compute import AttentionBackend
from shotstream_jax.models.splash import splash
from shotstream_jax.pytree import pytree, static
from shotstream_jax.sharding import sample_axes
from shotstream_jax.typing import Array, Float, Int

Queries = Float[Array, "batch query head head_dim"]
Keys = Float[Array, "batch key head head_dim"]


@pytree
class Prefix:
    """How many keys are seen: one of a few counts, chosen when run; or one, known when compiled.

    Seven chunks of a shot are seven counts in one program, a branch each where a kernel would
    otherwise compute every key only to mask it. cuDNN is told the count when it runs; a GPU's
    branches would be chosen by the host.

    Attributes:
      which: place in `counts`.
      counts: all there are.
    """

    which: Int[Array, ""]
    counts: tuple[int, ...] = static()

    @classmethod
    def known(cls, count: int) -> "Prefix":
        """The first `count` keys."""
        return cls(which=jnp.int32(0), counts=(count,))

    @property
    def count(self) -> Int[Array, ""]:
        """The chosen one."""
        return jnp.asarray(self.counts)[self.which]


Attention = Callable[[Queries, Keys, Keys, Prefix | None], Queries]

_XLA_LOGITS = 1 << 26
"""Attention logits that the XLA backend holds at once; longer queries go in pieces."""


def attend(
    q: Queries,
    k: Keys,
    v: Keys,
    seen: Prefix | None = None,
    *,
    backend: AttentionBackend = "xla",
    mesh: Mesh | None = None,
) -> Queries:
    """Softmax attention over keys, or over the first that are seen, scaled by head_dim^-1/2.

    `mesh` are the devices that share the work, which the TPU kernel must be told.
    """
    if seen is not None and len(seen.counts) == 1:
        (count,) = seen.counts
        k, v, seen = k[:, :count], v[:, :count], None
    match backend:
        case "xla":
            return _xla_attention(q, k, v, seen)
        case "cudnn":
            return _cudnn_attention(q, k, v, seen)
        case "splash":
            return split_over_devices(_splash_attention, mesh)(q, k, v, seen)


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
            check_vma=False,
        )
        return split(q, k, v, prefix)

    return on_each


def _xla_attention(q: Queries, k: Keys, v: Keys, prefix: Prefix | None) -> Queries:
    """Plain attention that any platform compiles, long queries in pieces of bounded memory."""
    if prefix is not None:
        branches = [
            lambda q, k, v, count=count: _xla_attention(q, k[:, :count], v[:, :count], None)
            for count in prefix.counts
        ]
        return jax.lax.switch(prefix.which, branches, q, k, v)
    batch, queries, heads, head_dim = q.shape
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
    """Flash attention of cuDNN, on NVIDIA GPUs."""
    if prefix is None:
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
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
