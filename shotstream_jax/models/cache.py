"""The dual cache: keys and values of earlier shots' frames, and of the shot's own chunks.

One array for keys and one for values, stacked over layers, the context first:

    slot   0 .......... context   context ................................ end
           [ earlier shots ][ chunk 0 ][ chunk 1 ] ... [ newest chunk ][ unwritten zeros ]
           '------------------------- visible prefix -----------------'

The keys visible to a chunk are therefore one prefix. When a shot outgrows its local window, the
newest chunk overwrites the oldest that is not a sink (order does not matter to attention: keys are
stored rotated to their own positions), and the prefix is the whole cache.

A pass returns keys and values; only `write_context` and `write_chunk` put them into a cache.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.models.quantise import Quantised, quantise
from shotstream_jax.pytree import pytree, static
from shotstream_jax.typing import Array, Float, Index, Int


@pytree
class Prefix:
    """Length of the visible prefix of keys: an index into a few static lengths.

    The seven chunks of a shot have seven lengths and share one program. XLA and splash compile a
    branch for each length, since a single kernel would compute every key and mask most of them;
    cuDNN takes the length at run time, since on a GPU the host would have to choose the branch.
    With one length there is nothing to choose, and the keys are sliced at compile time.

    Attributes:
      which: index into `counts`.
      counts: the possible lengths, in keys.
    """

    which: Int[Array, ""]
    counts: tuple[int, ...] = static()

    @classmethod
    def known(cls, count: int) -> "Prefix":
        """The first `count` keys."""
        return cls(which=jnp.int32(0), counts=(count,))

    @property
    def count(self) -> Int[Array, ""]:
        """The chosen length."""
        return jnp.asarray(self.counts)[self.which]


@pytree
class KeyValue:
    """Keys (rotated) and values of some tokens in every layer."""

    key: Float[Array, "*layer batch slot head head_dim"]
    value: Float[Array, "*layer batch slot head head_dim"]


@pytree
class QuantisedKeyValue:
    """The same in 8 bits, with one scale for each token and head."""

    key: Quantised
    value: Quantised


CachedKeyValue = KeyValue | QuantisedKeyValue
"""Keys and values as a cache stores them."""


@pytree
class TextKeys:
    """Cross-attention keys and values of captions in every layer."""

    key: Float[Array, "*layer batch caption text_token head head_dim"]
    value: Float[Array, "*layer batch caption text_token head head_dim"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """How many latent frames a cache holds.

    Attributes:
      chunk: frames generated together.
      context: frames of earlier shots.
      local: frames of this shot that a chunk may see, its own included.
      sink: first frames of the shot that are never evicted.
    """

    chunk: int = 3
    context: int = 6
    local: int = 21
    sink: int = 0

    def __post_init__(self) -> None:
        """Raises: ValueError: no frames, frames that are not whole chunks, or no room to roll."""
        if self.chunk < 1 or self.context < 0:
            raise ValueError(
                f"A chunk of {self.chunk} frames and a context of {self.context}; a chunk has 1 or "
                "more, a context 0 or more."
            )
        for name in ("local", "sink"):
            frames = getattr(self, name)
            if frames % self.chunk:
                raise ValueError(
                    f"{name} window of {frames} frames is not whole chunks of {self.chunk}."
                )
        if not 0 <= self.sink < self.local:
            raise ValueError(
                f"A sink of {self.sink} frames leaves no room in a local window of {self.local}."
            )


@pytree
class ShotCache:
    """The paper's dual cache, context and local, as one array, and the shot's caption.

    Attributes:
      kv: context slots, then local slots.
      text: cross-attention keys and values of the shot's caption.
      frame_tokens: tokens in one latent frame.
      window: how the slots divide into context and chunks.
    """

    kv: CachedKeyValue
    text: TextKeys
    frame_tokens: int = static()
    window: Window = static()

    @property
    def context(self) -> CachedKeyValue:
        """Keys and values of earlier shots: `[layer batch context-slot head head_dim]`."""
        end = self.window.context * self.frame_tokens
        return jax.tree.map(lambda x: x[:, :, :end], self.kv)

    @property
    def local(self) -> CachedKeyValue:
        """Keys and values of this shot, in ring order."""
        start = self.window.context * self.frame_tokens
        return jax.tree.map(lambda x: x[:, :, start:], self.kv)


@pytree
class CacheSlot:
    """Where in the cache some tokens are written, and how much of it they see.

    Attributes:
      start: first slot that the keys take.
      visible: slots that the tokens see, their own included.
    """

    start: Index
    visible: Prefix


def init_cache(
    config: DiTConfig,
    window: Window,
    text: TextKeys,
    frame_tokens: int,
    dtype: Any = jnp.float32,
    *,
    in_int8: bool = False,
) -> ShotCache:
    """An empty cache for captions of the shape of `text`.

    With `in_int8` self-attention's keys and values are stored in 8 bits (approximate).
    """
    batch = text.key.shape[1]
    slots = (window.context + window.local) * frame_tokens
    shape = (config.layers, batch, slots, config.heads, config.head_dim)
    # Zeros, since masked keys must still be finite: 0 * NaN is NaN. Two arrays, and a copy of
    # `text`, since a cache is donated whole and no buffer can be donated twice.
    kv = KeyValue(key=jnp.zeros(shape, dtype), value=jnp.zeros(shape, dtype))
    return ShotCache(
        kv=_quantised(kv) if in_int8 else kv,
        text=jax.tree.map(jnp.zeros_like, text),
        frame_tokens=frame_tokens,
        window=window,
    )


def chunk_slot(window: Window, frame_tokens: int, chunk: Index) -> CacheSlot:
    """The slot of a shot's chunk number `chunk`, rolling once the local window is full.

    A window of 3 chunks, without a sink and with a sink of 1 chunk (which chunk lies where):

        chunk   0     1     2     3     4     5
        sink 0  0..   01.   012   312   342   345
        sink 1  0..   01.   012   032   034   054
    """
    # In whole chunks: a ring of `room - sink` behind the sink, entered at chunk `sink`.
    room, sink = window.local // window.chunk, window.sink // window.chunk
    tokens, context = window.chunk * frame_tokens, window.context * frame_tokens
    counts = tuple(context + count * tokens for count in range(1, room + 1))
    rolled = sink + (chunk - sink) % (room - sink)
    # A number known at compile time needs no branches over prefix lengths.
    if isinstance(chunk, int):
        ring = chunk if chunk < room else rolled
        visible = Prefix.known(counts[min(chunk, room - 1)])
    else:
        ring = jnp.where(chunk < room, chunk, rolled)
        visible = Prefix(which=jnp.minimum(chunk, room - 1), counts=counts)
    return CacheSlot(start=context + ring * tokens, visible=visible)


def write_context(cache: ShotCache, kv: KeyValue) -> ShotCache:
    """Write the keys and values of the context frames, which fill all context slots."""
    return _write(cache, kv, 0)


def write_chunk(cache: ShotCache, kv: KeyValue, chunk: Index) -> ShotCache:
    """Write the clean keys and values of a chunk; donate the cache to write in place."""
    slot = chunk_slot(cache.window, cache.frame_tokens, chunk)
    return _write(cache, kv, slot.start)


def _write(cache: ShotCache, kv: KeyValue, slot: Index) -> ShotCache:
    def put(into: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(into, new.astype(into.dtype), slot, axis=2)

    new = _quantised(kv) if isinstance(cache.kv, QuantisedKeyValue) else kv
    return dataclasses.replace(cache, kv=jax.tree.map(put, cache.kv, new))


def _quantised(kv: KeyValue) -> QuantisedKeyValue:
    return QuantisedKeyValue(key=quantise(kv.key), value=quantise(kv.value))
