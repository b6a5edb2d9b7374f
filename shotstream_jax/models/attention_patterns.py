"""What queries of self-attention see: one another, or a cache with themselves in it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from shotstream_jax.models.attention import attend, attend_levels
from shotstream_jax.models.cache import Held, KeyValue, Place
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.layers import Heads
from shotstream_jax.models.quantise import widen
from shotstream_jax.typing import Array, Latents

Mix = Callable[[Heads, KeyValue, Held | None], Heads]
"""Self-attention of queries to their own keys and values, and to one layer of a cache."""


def see_one_another(
    config: DiTConfig, latents: Latents, levels: Sequence[int] | None, compute: Compute
) -> Mix:
    """Frames see frames: all of them, or level by level what is before."""
    _, frames, rows, cols, _ = latents.shape
    patches = (rows // config.patch[0]) * (cols // config.patch[1])
    tokens = [count * patches for count in (levels or [frames])]
    how = {"backend": compute.attention, "mesh": compute.mesh}
    return lambda q, kv, _: attend_levels(q, kv.key, kv.value, tokens, **how)


def see_cache(place: Place, compute: Compute) -> Mix:
    """Tokens see the cache up to their own place, and themselves in it."""

    def mix(q: Heads, kv: KeyValue, layer: Held | None) -> Heads:
        return _attend_cached(q, _put(layer, kv, place), place, compute)

    return mix


def see_cache_in_turn(first: Place, then: Place, tokens: int, compute: Compute) -> Mix:
    """The first `tokens` go to their place and look; what follows sees them there."""

    def mix(q: Heads, kv: KeyValue, layer: Held | None) -> Heads:
        seen = _put(layer, jax.tree.map(lambda x: x[:, :tokens], kv), first)
        mixed = _attend_cached(q[:, :tokens], seen, first, compute)
        seen = _put(seen, jax.tree.map(lambda x: x[:, tokens:], kv), then)
        return jnp.concatenate([mixed, _attend_cached(q[:, tokens:], seen, then, compute)], axis=1)

    return mix


def _put(layer: Held | None, kv: KeyValue, place: Place) -> KeyValue:
    """One layer of a cache with new keys and values at their place."""
    if layer is None:
        raise TypeError("Queries that see a cache need one.")

    def put(into: Any, new: Array) -> Array:
        into = widen(into, new.dtype).astype(new.dtype)
        return jax.lax.dynamic_update_slice_in_dim(into, new, place.slot, axis=1)

    return KeyValue(key=put(layer.key, kv.key), value=put(layer.value, kv.value))


def _attend_cached(q: Heads, seen: KeyValue, place: Place, compute: Compute) -> Heads:
    how = {"backend": compute.attention, "mesh": compute.mesh}
    return attend(q, seen.key, seen.value, place.seen, **how)
