"""The Wan2.1 diffusion transformer: teacher, scores and causal student are one definition.

Parameters are a nested dict; blocks are stacked on a leading layer axis and scanned. The network
proposes (a velocity, and the keys and values of what it saw) and writes nothing:

    apply_dense    frames see frames, in levels; one level is the bidirectional network
    apply_cached   a chunk sees a cache and itself
    keys_dense     only the keys and values, for the context pass
    keys_cached    only the keys and values, for the clean pass of a finished chunk

The two key passes stop at the last layer's keys and skip the head.

Source: public Wan2.1 and ShotStream repositories, wan/modules/model.py and causal_model.py.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from shotstream_jax.models.attention import attend, attend_levels
from shotstream_jax.models.cache import KeyValue, Place, ShotCache, TextKeys
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.layers import (
    AffineNorm,
    Attention,
    FeedForward,
    Heads,
    Modulation,
    Stream,
    modulate,
    normalise,
    sinusoid,
)
from shotstream_jax.models.rope import Rotation
from shotstream_jax.pytree import pytree
from shotstream_jax.typing import Array, Bool, Float, Int, Key, Latents, Params, Text, Timesteps

CaptionIndex = Int[Array, "batch frame"]
Mix = Callable[[Heads, KeyValue, KeyValue | None], Heads]
"""Self-attention of queries to their own keys and values, and to one layer of a cache."""


@pytree
class Proposal:
    """What one call of the network says.

    Attributes:
      velocity: predicted `noise - x0`.
      kv: keys and values of the frames it was given, in every layer.
    """

    velocity: Latents
    kv: KeyValue


class Trunk(nn.Module):
    """Everything outside the blocks: patches in and out, time and text embeddings."""

    config: DiTConfig
    compute: Compute

    def setup(self) -> None:
        """Name the layers."""
        dim, dtype = self.config.dim, self.compute.dtype
        self.patch_embedding = nn.Dense(dim, dtype=dtype)
        self.text_in, self.text_out = nn.Dense(dim, dtype=dtype), nn.Dense(dim, dtype=dtype)
        # A handful of rows, and everything hangs on them: float32.
        self.time_in = nn.Dense(dim, dtype=jnp.float32)
        self.time_out = nn.Dense(dim, dtype=jnp.float32)
        self.time_projection = nn.Dense(6 * dim, dtype=jnp.float32)
        self.head = nn.Dense(self.config.patch_channels, dtype=dtype)
        self.head_modulation = self.param("head_modulation", _small_normal, (2, dim))

    def embed_patches(self, latents: Latents) -> Stream:
        """Cut latents into patches, row-major, and project them."""
        q, r = self.config.patch
        cut = "batch frame (row q) (col r) chan -> batch frame (row col) (q r chan)"
        return self.patch_embedding(rearrange(latents, cut, q=q, r=r))

    def embed_time(
        self, timesteps: Timesteps
    ) -> tuple[Float[Array, "batch #frame dim"], Float[Array, "batch #frame 6 dim"]]:
        """A frame's time embedding, and the six vectors that modulate its blocks."""
        wave = sinusoid(timesteps, self.config.freq_dim)
        time = self.time_out(nn.silu(self.time_in(wave)))
        six = self.time_projection(nn.silu(time))
        return time, six.reshape(*timesteps.shape, 6, self.config.dim)

    def embed_text(
        self, text: Float[Array, "*axes text_token text_dim"]
    ) -> Float[Array, "*axes text_token dim"]:
        """Map encoded captions into the stream; padding becomes a constant that is attended to."""
        return self.text_out(nn.gelu(self.text_in(text), approximate=True))

    def unpatch(self, x: Stream, time: Float[Array, "batch #frame dim"], rows: int) -> Latents:
        """Project patches back to latents of `rows` patch rows."""
        shift, scale = jnp.split(_add(self.head_modulation, time[:, :, None]), 2, axis=2)
        patches = self.head((normalise(x) * (1 + scale) + shift).astype(self.compute.dtype))
        q, r = self.config.patch
        paste = "batch frame (row col) (q r chan) -> batch frame (row q) (col r) chan"
        return rearrange(patches, paste, row=rows, q=q, r=r)

    def everything(self, latents: Latents, timesteps: Timesteps, text: Text) -> Latents:
        """Touch every parameter once, to initialise them."""
        self.embed_text(text)
        time, _ = self.embed_time(timesteps)
        return self.unpatch(
            self.embed_patches(latents), time, latents.shape[2] // self.config.patch[0]
        )


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; self-attention's mixing is done outside."""

    config: DiTConfig
    compute: Compute

    def setup(self) -> None:
        """Name the layers."""
        dim, heads = self.config.dim, self.config.heads
        self.modulation = self.param("modulation", _small_normal, (6, dim))
        self.self_attention = Attention(dim, heads, self.compute)
        self.cross_norm = AffineNorm(dim)
        self.cross_attention = Attention(dim, heads, self.compute)
        self.ffn = FeedForward(dim, self.config.ffn_dim, self.compute)

    def project(
        self, x: Stream, time: Float[Array, "batch #frame 6 dim"], angles: Rotation
    ) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values of self-attention."""
        before, _ = self._modulations(time)
        return self.self_attention.rotated(modulate(x, before).astype(self.compute.dtype), angles)

    def finish(
        self,
        x: Stream,
        time: Float[Array, "batch #frame 6 dim"],
        mixed: Heads,
        text: TextKeys,
        caption_index: CaptionIndex | None,
    ) -> Stream:
        """The rest of the block, once self-attention has mixed its values."""
        before, after = self._modulations(time)
        x = _residual(x, self.self_attention.output(mixed).reshape(x.shape), before.gate)
        x = _residual(x, self._read_captions(x, text, caption_index))
        hidden = modulate(x, after).astype(self.compute.dtype)
        return _residual(x, self.ffn(hidden), after.gate)

    def text_keys(self, text: Float[Array, "batch caption text_token dim"]) -> TextKeys:
        """Cross-attention keys and values of embedded captions."""
        key, value = self.cross_attention.keys_values(text)
        by_caption = functools.partial(
            rearrange, pattern="batch (caption token) head dim -> batch caption token head dim"
        )
        captions = text.shape[1]
        return TextKeys(
            key=by_caption(key, caption=captions), value=by_caption(value, caption=captions)
        )

    def everything(
        self,
        x: Stream,
        time: Float[Array, "batch #frame 6 dim"],
        angles: Rotation,
        text: Float[Array, "batch caption text_token dim"],
    ) -> Stream:
        """Touch every parameter once, to initialise them."""
        _, _, value = self.project(x, time, angles)
        return self.finish(x, time, value, self.text_keys(text), None)

    def _modulations(
        self, time: Float[Array, "batch #frame 6 dim"]
    ) -> tuple[Modulation, Modulation]:
        six = jnp.split(_add(self.modulation, time), 6, axis=2)
        return (
            Modulation(shift=six[0], scale=six[1], gate=six[2]),
            Modulation(shift=six[3], scale=six[4], gate=six[5]),
        )

    def _read_captions(
        self, x: Stream, text: TextKeys, caption_index: CaptionIndex | None
    ) -> Stream:
        """Every frame attends to its own caption, padding and all."""
        hidden = self.cross_norm(x).astype(self.compute.dtype)
        key, value = text.key, text.value
        if key.shape[1] == 1:
            key, value = key[:, 0], value[:, 0]
        else:
            hidden = rearrange(hidden, "batch frame patch dim -> (batch frame) patch dim")
            pick = jax.vmap(lambda captions, index: captions[index])
            key, value = (
                rearrange(pick(kv, caption_index), "batch frame ... -> (batch frame) ...")
                for kv in (key, value)
            )
        mixed = attend(
            self.cross_attention.queries(hidden), key, value, backend=self.compute.attention
        )
        return self.cross_attention.output(mixed).reshape(x.shape)


def init_dit(key: Key[Array, ""], config: DiTConfig) -> Params:
    """Fresh float32 parameters: small normal modulation, everything else Linen's defaults."""
    compute = Compute()
    rows, cols = config.patch
    latents = jnp.zeros((1, 1, rows, cols, config.latent_channels))
    text = jnp.zeros((1, 1, config.text_tokens, config.text_dim))
    trunk_key, block_key = jax.random.split(key)
    trunk = Trunk(config, compute).init(
        trunk_key, latents, jnp.zeros((1, 1)), text, method="everything"
    )["params"]
    flat = jnp.zeros((1, 1, config.head_dim // 2))
    block = functools.partial(
        Block(config, compute).init,
        x=jnp.zeros((1, 1, 1, config.dim)),
        time=jnp.zeros((1, 1, 6, config.dim)),
        angles=Rotation(cos=flat, sin=flat),
        text=jnp.zeros((1, 1, config.text_tokens, config.dim)),
        method="everything",
    )
    blocks = jax.vmap(block)(jax.random.split(block_key, config.layers))["params"]
    return {**trunk, "blocks": blocks}


def encode_captions(
    params: Params, config: DiTConfig, text: Text, compute: Compute = Compute()
) -> TextKeys:
    """Cross-attention keys and values of captions in every layer: once a caption, not a step."""
    embedded = _trunk(params, config, compute, "embed_text", text)
    block = Block(config, compute)

    def one_layer(layer: Params) -> TextKeys:
        return _apply(block, layer, "text_keys", embedded)

    return jax.lax.map(one_layer, params["blocks"])


def apply_dense(
    params: Params,
    config: DiTConfig,
    x_t: Latents,
    timesteps: Timesteps,
    angles: Rotation,
    text: TextKeys,
    *,
    caption_index: CaptionIndex | None = None,
    levels: Sequence[int] | None = None,
    compute: Compute = Compute(),
) -> Proposal:
    """Run frames that attend to one another, all to all or level by level.

    `levels` are frame counts: context first, then chunks, each seeing itself and what is before.
    `caption_index` routes frames to captions where there are several.
    """
    run = _Pass(params, config, angles, text, caption_index, compute)
    return run.velocity(x_t, timesteps, _dense(config, x_t, levels, compute), None)


def keys_dense(
    params: Params,
    config: DiTConfig,
    latents: Latents,
    timesteps: Timesteps,
    angles: Rotation,
    text: TextKeys,
    *,
    caption_index: CaptionIndex | None = None,
    compute: Compute = Compute(),
) -> KeyValue:
    """Keys and values of frames that attend to one another: the context pass."""
    run = _Pass(params, config, angles, text, caption_index, compute)
    return run.keys(latents, timesteps, _dense(config, latents, None, compute), None)


def apply_cached(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    place: Place,
    x_t: Latents,
    timesteps: Timesteps,
    angles: Rotation,
    *,
    compute: Compute = Compute(),
) -> Proposal:
    """Run a chunk that attends to what the cache holds up to its own place, and to itself."""
    run = _Pass(params, config, angles, cache.text, None, compute)
    return run.velocity(x_t, timesteps, _cached(place, compute), cache.kv)


def keys_cached(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    place: Place,
    latents: Latents,
    timesteps: Timesteps,
    angles: Rotation,
    *,
    compute: Compute = Compute(),
) -> KeyValue:
    """Keys and values of a finished chunk: the clean pass."""
    run = _Pass(params, config, angles, cache.text, None, compute)
    return run.keys(latents, timesteps, _cached(place, compute), cache.kv)


@pytree
class _Layer:
    """What the scan hands to one layer."""

    params: Params
    text: TextKeys
    cache: KeyValue | None
    is_last: Bool[Array, "*layer"]


class _Pass:
    """One pass over the layers, with what all of them share."""

    def __init__(
        self,
        params: Params,
        config: DiTConfig,
        angles: Rotation,
        text: TextKeys,
        caption_index: CaptionIndex | None,
        compute: Compute,
    ):
        self.params, self.config, self.compute = params, config, compute
        self.angles, self.text, self.caption_index = angles, text, caption_index
        self.block = Block(config, compute)

    def velocity(
        self, x_t: Latents, timesteps: Timesteps, mix: Mix, cache: KeyValue | None
    ) -> Proposal:
        x, time, six = self._start(x_t, timesteps)

        def body(x: Stream, layer: _Layer) -> tuple[Stream, KeyValue]:
            q, kv = self._project(x, six, layer)
            return self._finish(x, six, mix(q, kv, layer.cache), layer), kv

        x, kv = jax.lax.scan(_remat(body, self.compute), x, self._layers(cache))
        rows = x_t.shape[2] // self.config.patch[0]
        velocity = _trunk(self.params, self.config, self.compute, "unpatch", x, time, rows)
        return Proposal(velocity=velocity.astype(x_t.dtype), kv=kv)

    def keys(
        self, latents: Latents, timesteps: Timesteps, mix: Mix, cache: KeyValue | None
    ) -> KeyValue:
        x, _, six = self._start(latents, timesteps)

        def body(x: Stream, layer: _Layer) -> tuple[Stream, KeyValue]:
            q, kv = self._project(x, six, layer)

            def finish(x: Stream) -> Stream:
                return self._finish(x, six, mix(q, kv, layer.cache), layer)

            # Nobody reads the stream after the last layer's keys.
            return jax.lax.cond(layer.is_last, lambda x: x, finish, x), kv

        _, kv = jax.lax.scan(body, x, self._layers(cache))
        return kv

    def _layers(self, cache: KeyValue | None) -> _Layer:
        is_last = jnp.arange(self.config.layers) == self.config.layers - 1
        return _Layer(params=self.params["blocks"], text=self.text, cache=cache, is_last=is_last)

    def _start(self, latents: Latents, timesteps: Timesteps) -> tuple[Stream, Array, Array]:
        call = functools.partial(_trunk, self.params, self.config, self.compute)
        return call("embed_patches", latents), *call("embed_time", timesteps)

    def _project(self, x: Stream, six: Array, layer: _Layer) -> tuple[Heads, KeyValue]:
        q, k, v = _apply(self.block, layer.params, "project", x, six, self.angles)
        return q, KeyValue(key=k, value=v)

    def _finish(self, x: Stream, six: Array, mixed: Heads, layer: _Layer) -> Stream:
        return _apply(
            self.block, layer.params, "finish", x, six, mixed, layer.text, self.caption_index
        )


def _dense(
    config: DiTConfig, latents: Latents, levels: Sequence[int] | None, compute: Compute
) -> Mix:
    _, frames, rows, cols, _ = latents.shape
    patches = (rows // config.patch[0]) * (cols // config.patch[1])
    tokens = [count * patches for count in (levels or [frames])]
    backend = compute.attention
    return lambda q, kv, _: attend_levels(q, kv.key, kv.value, tokens, backend=backend)


def _cached(place: Place, compute: Compute) -> Mix:
    def put(into: Array, new: Array) -> Array:
        into = into.astype(new.dtype)
        return jax.lax.dynamic_update_slice_in_dim(into, new, place.slot, axis=1)

    def mix(q: Heads, kv: KeyValue, layer: KeyValue | None) -> Heads:
        seen = jax.tree.map(put, layer, kv)
        return attend(q, seen.key, seen.value, place.length, backend=compute.attention)

    return mix


def _trunk(params: Params, config: DiTConfig, compute: Compute, method: str, *args: Any) -> Any:
    trunk = {name: value for name, value in params.items() if name != "blocks"}
    return _apply(Trunk(config, compute), trunk, method, *args)


def _apply(module: nn.Module, params: Params, method: str, *args: Any) -> Any:
    """A Linen module as a plain function of its parameters."""
    return module.apply({"params": params}, *args, method=method)


def _remat(body: Callable, compute: Compute) -> Callable:
    if compute.remat == "none":
        return body
    saved = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    policy = saved if compute.remat == "dots" else None
    # `scan` already keeps the compiler from undoing the recomputation.
    return jax.checkpoint(body, policy=policy, prevent_cse=False)


def _residual(x: Stream, update: Stream, gate: Float[Array, "..."] | None = None) -> Stream:
    update = update.astype(jnp.float32)
    update = update if gate is None else gate * update
    return (x.astype(jnp.float32) + update).astype(x.dtype)


def _add(table: Float[Array, "rows dim"], time: Float[Array, "..."]) -> Float[Array, "..."]:
    return table.astype(jnp.float32) + time


def _small_normal(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    return jax.random.normal(key, shape, dtype) * shape[-1] ** -0.5
