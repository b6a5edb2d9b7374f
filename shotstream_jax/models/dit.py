"""The Wan2.1 diffusion transformer: teacher, scores and causal student are one definition.

Parameters are a nested dict; blocks are stacked on a leading layer axis and scanned. A pass returns
its results (a velocity; the keys and values of its frames) and writes no cache:

    apply_dense    frames attend to one another, in levels; one level is the bidirectional network
    apply_cached   a chunk attends to a cache and to itself
    keys_dense     only the keys and values: the context pass
    keys_cached    only the keys and values: the clean pass of a finished chunk
    apply_merged   both at once: frames enter the cache, and a chunk attends to them

Source: public Wan2.1 and ShotStream repositories, wan/modules/model.py and causal_model.py.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from shotstream_jax.models.attention import (
    AttentionPattern,
    block_causal,
    cached,
    cached_prefix_then_chunk,
)
from shotstream_jax.models.cache import CachedKeyValue, CacheSlot, KeyValue, ShotCache, TextKeys
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.models.dit_modules import (
    Attention,
    Block,
    BlockModulation,
    CaptionIndex,
    Head,
    PatchEmbedding,
    Stream,
    TextEmbedding,
    TimeEmbedding,
    TimestepEmbedding,
    apply_module,
    caption_keys,
)
from shotstream_jax.models.quantise import dequantise
from shotstream_jax.models.rope import Rotation
from shotstream_jax.pytree import pytree
from shotstream_jax.typing import Array, Index, Key, Latents, Params, Text, Timesteps


@pytree
class DiTOutput:
    """Result of one pass.

    Attributes:
      velocity: predicted `noise - x0`.
      kv: keys and values of the pass's frames, in every layer.
    """

    velocity: Latents
    kv: KeyValue


@pytree
class ChunkInput:
    """Frames of a cached pass that share a slot of the cache.

    Attributes:
      latents: the frames.
      timesteps: one for all frames, or one a frame.
      rope: rotation of their tokens.
      slot: where their keys are written, and how much of the cache they see.
    """

    latents: Latents
    timesteps: Timesteps
    rope: Rotation
    slot: CacheSlot


def init_dit(key: Key[Array, ""], config: DiTConfig) -> Params:
    """Fresh float32 parameters: small normal modulation, everything else Linen's defaults."""
    compute = Compute()
    stem_key, block_key = jax.random.split(key)
    # Parameters depend on the sizes of the network alone: one patch and one caption token will do.
    latents = jnp.zeros((1, 1, *config.patch, config.latent_channels))
    stream = jnp.zeros((1, 1, 1, config.dim))
    # Linen folds each parameter's path into the key, so the modules do not share their draws.
    variables = (
        PatchEmbedding(config, compute).init(stem_key, latents),
        TextEmbedding(config, compute).init(stem_key, jnp.zeros((1, 1, 1, config.text_dim))),
        TimestepEmbedding(config).init(stem_key, jnp.zeros((1, 1))),
        Head(config, compute).init(stem_key, stream, jnp.zeros((1, 1, config.dim)), 1),
    )
    flat = jnp.zeros((1, 1, config.head_dim // 2))
    init_block = functools.partial(
        Block(config, compute).init,
        x=stream,
        modulation=jnp.zeros((1, 1, 6, config.dim)),
        rope=Rotation(cos=flat, sin=flat),
        text=jnp.zeros((1, 1, 1, config.dim)),
        caption_index=None,
        attention=functools.partial(block_causal, levels=(1,), compute=compute),
        cache=None,
    )
    blocks = jax.vmap(init_block)(jax.random.split(block_key, config.layers))["params"]
    stem = {name: leaf for part in variables for name, leaf in part["params"].items()}
    return {**stem, "blocks": blocks}


def encode_captions(
    params: Params, config: DiTConfig, text: Text, compute: Compute = Compute()
) -> TextKeys:
    """Cross-attention keys and values of captions in every layer: once a caption, not a step."""
    embedded = apply_module(TextEmbedding(config, compute), _stem(params), text)
    cross_attention = Attention(config.dim, config.heads, compute)

    def one_layer(layer: Params) -> TextKeys:
        variables = {"params": dequantise(layer)}
        return cross_attention.apply(variables, embedded, method=caption_keys)  # type: ignore

    # One layer at a time, compiled once; in a batch of all layers each would hold its projections
    # in float32 before the norm.
    return jax.lax.map(one_layer, params["blocks"]["cross_attention"])


def apply_dense(
    params: Params,
    config: DiTConfig,
    x_t: Latents,
    timesteps: Timesteps,
    rope: Rotation,
    text: TextKeys,
    *,
    caption_index: CaptionIndex | None = None,
    levels: Sequence[int] | None = None,
    compute: Compute = Compute(),
) -> DiTOutput:
    """Run frames that attend to one another, all to all or level by level.

    `levels` are frame counts, context first, then chunks; a level attends to itself and to those
    before it. `caption_index` routes frames to captions where there are several.
    """
    pattern = _dense_pattern(config, x_t, levels, compute)
    forward = _Forward(params, config, rope, text, caption_index, pattern, None, compute)
    return forward.velocity(x_t, timesteps)


def keys_dense(
    params: Params,
    config: DiTConfig,
    latents: Latents,
    timesteps: Timesteps,
    rope: Rotation,
    text: TextKeys,
    *,
    caption_index: CaptionIndex | None = None,
    compute: Compute = Compute(),
) -> KeyValue:
    """Keys and values of frames that attend to one another: the context pass."""
    pattern = _dense_pattern(config, latents, None, compute)
    forward = _Forward(params, config, rope, text, caption_index, pattern, None, compute)
    return forward.keys(latents, timesteps)


def apply_cached(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    chunk: ChunkInput,
    *,
    compute: Compute = Compute(),
) -> DiTOutput:
    """Run a chunk that attends to the cache's visible prefix and to itself."""
    pattern = functools.partial(cached, slot=chunk.slot, compute=compute)
    forward = _Forward(params, config, chunk.rope, cache.text, None, pattern, cache.kv, compute)
    return forward.velocity(chunk.latents, chunk.timesteps)


def keys_cached(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    chunk: ChunkInput,
    *,
    compute: Compute = Compute(),
) -> KeyValue:
    """Keys and values of a finished chunk: the clean pass."""
    pattern = functools.partial(cached, slot=chunk.slot, compute=compute)
    forward = _Forward(params, config, chunk.rope, cache.text, None, pattern, cache.kv, compute)
    return forward.keys(chunk.latents, chunk.timesteps)


def apply_merged(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    finished: ChunkInput,
    chunk: ChunkInput,
    text: TextKeys,
    *,
    caption_index: CaptionIndex | None = None,
    compute: Compute = Compute(),
) -> DiTOutput:
    """Keys and values of finished frames, and the velocity of a chunk that already sees them.

    The same numbers as `keys_cached` (or `keys_dense`), a write, and `apply_cached`, in one pass
    that reads the weights once. `text` and `caption_index` cover the finished frames, then the
    chunk's.
    """
    # Finished frames first: the chunk's queries then attend to keys that are already in the cache.
    frames, tokens = finished.latents.shape[1], finished.rope.cos.shape[1]
    rope = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), finished.rope, chunk.rope)
    pattern = functools.partial(
        cached_prefix_then_chunk,
        prefix=finished.slot,
        chunk=chunk.slot,
        tokens=tokens,
        compute=compute,
    )
    forward = _Forward(params, config, rope, text, caption_index, pattern, cache.kv, compute)
    output = forward.velocity(
        jnp.concatenate([finished.latents, chunk.latents], axis=1),
        jnp.concatenate([_frame_timesteps(finished), _frame_timesteps(chunk)], axis=1),
    )
    return DiTOutput(
        velocity=output.velocity[:, frames:],
        kv=jax.tree.map(lambda x: x[:, :, :tokens], output.kv),
    )


@pytree
class _Layer:
    """One layer's part of everything that is stacked over layers."""

    params: Params
    text: TextKeys
    cache: CachedKeyValue | None


class _Forward:
    """One pass over the layers, with what all of them share."""

    def __init__(
        self,
        params: Params,
        config: DiTConfig,
        rope: Rotation,
        text: TextKeys,
        caption_index: CaptionIndex | None,
        pattern: AttentionPattern,
        cache: CachedKeyValue | None,
        compute: Compute,
    ):
        self.config, self.compute, self.stem = config, compute, _stem(params)
        self.rope, self.caption_index, self.pattern = rope, caption_index, pattern
        self.layers = _Layer(params=params["blocks"], text=text, cache=cache)

    def velocity(self, x_t: Latents, timesteps: Timesteps) -> DiTOutput:
        """All layers, then the head."""
        time, modulation = self._embed_time(timesteps)

        def body(x: Stream, layer: _Layer) -> tuple[Stream, KeyValue]:
            return self._block(x, modulation, layer)

        x, kv = jax.lax.scan(_remat(body, self.compute), self._embed(x_t), self.layers)
        # Tokens are flat in the stream, so the head needs the number of patch rows to undo it.
        rows = x_t.shape[2] // self.config.patch[0]
        velocity = apply_module(Head(self.config, self.compute), self.stem, x, time, rows)
        return DiTOutput(velocity=velocity.astype(x_t.dtype), kv=kv)

    def keys(self, latents: Latents, timesteps: Timesteps) -> KeyValue:
        """All layers up to the keys and values of the last one; not made for gradients."""
        _, modulation = self._embed_time(timesteps)

        def layer(index: Index, state: tuple[Stream, KeyValue]) -> tuple[Stream, KeyValue]:
            x, kv = state
            x, new = self._block(x, modulation, self._layer(index))
            put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=index, axis=0)
            return x, jax.tree.map(put, kv, new)

        # The loop writes into one buffer of all layers: what a scan over all layers but the last
        # returns would be copied to append the last one's keys, and so would its weights.
        last = self.config.layers - 1
        start = self._embed(latents), self._empty_keys(latents.shape[0])
        state = jax.lax.fori_loop(0, last, layer, start)
        # The compiler drops the rest of the last block, whose output is unused. A `cond` inside the
        # loop would skip it too, but a GPU's host waits for the predicate in every layer.
        return layer(last, state)[1]

    def _embed(self, latents: Latents) -> Stream:
        return apply_module(PatchEmbedding(self.config, self.compute), self.stem, latents)

    def _embed_time(self, timesteps: Timesteps) -> tuple[TimeEmbedding, BlockModulation]:
        return apply_module(TimestepEmbedding(self.config), self.stem, timesteps)

    def _block(
        self, x: Stream, modulation: BlockModulation, layer: _Layer
    ) -> tuple[Stream, KeyValue]:
        block = Block(self.config, self.compute)
        captions = layer.text, self.caption_index
        inputs = x, modulation, self.rope, *captions, self.pattern, layer.cache
        return apply_module(block, layer.params, *inputs)

    def _layer(self, index: Index) -> _Layer:
        at = functools.partial(jax.lax.dynamic_index_in_dim, index=index, axis=0, keepdims=False)
        return jax.tree.map(at, self.layers)

    def _empty_keys(self, batch: int) -> KeyValue:
        config, tokens = self.config, self.rope.cos.shape[1]
        shape = (config.layers, batch, tokens, config.heads, config.head_dim)
        empty = jnp.zeros(shape, self.compute.dtype)
        return KeyValue(key=empty, value=empty)


def _stem(params: Params) -> Params:
    """The parameters outside the blocks."""
    return {name: value for name, value in params.items() if name != "blocks"}


def _dense_pattern(
    config: DiTConfig, latents: Latents, levels: Sequence[int] | None, compute: Compute
) -> AttentionPattern:
    _, frames, rows, cols, _ = latents.shape
    patches = (rows // config.patch[0]) * (cols // config.patch[1])
    tokens = tuple(count * patches for count in (levels or [frames]))
    return functools.partial(block_causal, levels=tokens, compute=compute)


def _frame_timesteps(chunk: ChunkInput) -> Timesteps:
    return jnp.broadcast_to(chunk.timesteps, chunk.latents.shape[:2])


def _remat(body: Callable, compute: Compute) -> Callable:
    if compute.remat == "none":
        return body
    # "dots" keeps the results of matrix products without a batch axis (projections), and recomputes
    # attention, norms and activations, which are cheap or large.
    saved = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    policy = saved if compute.remat == "dots" else None
    # `scan` already keeps the compiler from undoing the recomputation.
    return jax.checkpoint(body, policy=policy, prevent_cse=False)
