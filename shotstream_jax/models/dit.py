"""The Wan2.1 diffusion transformer: teacher, scores and causal student are one definition.

Parameters are a nested dict; blocks are stacked on a leading layer axis and scanned. The network
proposes (a velocity, and the keys and values of what it saw) and writes nothing:

    apply_dense    frames see frames, in levels; one level is the bidirectional network
    apply_cached   a chunk sees a cache and itself
    keys_dense     only the keys and values, for the context pass
    keys_cached    only the keys and values, for the clean pass of a finished chunk
    apply_merged   both at once: frames on their way into the cache, and a chunk that sees them

The two key passes stop at the last layer's keys and skip the head.

Source: public Wan2.1 and ShotStream repositories, wan/modules/model.py and causal_model.py.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from shotstream_jax.models.attention_patterns import (
    Mix,
    see_cache,
    see_cache_in_turn,
    see_one_another,
)
from shotstream_jax.models.cache import Held, KeyValue, Place, ShotCache, TextKeys
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.dit_modules import Block, CaptionIndex, Trunk, apply_module
from shotstream_jax.models.layers import Heads, Stream
from shotstream_jax.models.rope import Rotation
from shotstream_jax.pytree import pytree
from shotstream_jax.typing import Array, Bool, Key, Latents, Params, Text, Timesteps


@pytree
class Proposal:
    """What one call of the network says.

    Attributes:
      velocity: predicted `noise - x0`.
      kv: keys and values of the frames it was given, in every layer.
    """

    velocity: Latents
    kv: KeyValue


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
        return apply_module(block, layer, "text_keys", embedded)

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
    return run.velocity(x_t, timesteps, see_one_another(config, x_t, levels, compute), None)


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
    return run.keys(latents, timesteps, see_one_another(config, latents, None, compute), None)


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
    return run.velocity(x_t, timesteps, see_cache(place, compute), cache.kv)


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
    return run.keys(latents, timesteps, see_cache(place, compute), cache.kv)


@pytree
class Stretch:
    """Frames of one pass that share a place in the cache.

    Attributes:
      latents: the frames.
      timesteps: one, or one a frame.
      angles: rotation of their tokens.
      place: where their keys go, and how far they may see.
    """

    latents: Latents
    timesteps: Timesteps
    angles: Rotation
    place: Place


def apply_merged(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    finished: Stretch,
    chunk: Stretch,
    text: TextKeys,
    *,
    caption_index: CaptionIndex | None = None,
    compute: Compute = Compute(),
) -> Proposal:
    """Keys and values of finished frames, and the velocity of a chunk that already sees them.

    The same numbers as `keys_cached` (or `keys_dense`), a write, and `apply_cached`, in one pass
    that reads the weights once. `text` and `caption_index` speak of the finished frames and the
    chunk's, in this order.
    """
    frames, tokens = finished.latents.shape[1], finished.angles.cos.shape[1]
    angles = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), finished.angles, chunk.angles)
    run = _Pass(params, config, angles, text, caption_index, compute)
    proposal = run.velocity(
        jnp.concatenate([finished.latents, chunk.latents], axis=1),
        jnp.concatenate([_by_frame(finished), _by_frame(chunk)], axis=1),
        see_cache_in_turn(finished.place, chunk.place, tokens, compute),
        cache.kv,
    )
    return Proposal(
        velocity=proposal.velocity[:, frames:],
        kv=jax.tree.map(lambda x: x[:, :, :tokens], proposal.kv),
    )


@pytree
class _Layer:
    """What the scan hands to one layer."""

    params: Params
    text: TextKeys
    cache: Held | None
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
        self, x_t: Latents, timesteps: Timesteps, mix: Mix, cache: Held | None
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
        self, latents: Latents, timesteps: Timesteps, mix: Mix, cache: Held | None
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

    def _layers(self, cache: Held | None) -> _Layer:
        is_last = jnp.arange(self.config.layers) == self.config.layers - 1
        return _Layer(params=self.params["blocks"], text=self.text, cache=cache, is_last=is_last)

    def _start(self, latents: Latents, timesteps: Timesteps) -> tuple[Stream, Array, Array]:
        call = functools.partial(_trunk, self.params, self.config, self.compute)
        return call("embed_patches", latents), *call("embed_time", timesteps)

    def _project(self, x: Stream, six: Array, layer: _Layer) -> tuple[Heads, KeyValue]:
        q, k, v = apply_module(self.block, layer.params, "project", x, six, self.angles)
        return q, KeyValue(key=k, value=v)

    def _finish(self, x: Stream, six: Array, mixed: Heads, layer: _Layer) -> Stream:
        return apply_module(
            self.block, layer.params, "finish", x, six, mixed, layer.text, self.caption_index
        )


def _by_frame(stretch: Stretch) -> Timesteps:
    return jnp.broadcast_to(stretch.timesteps, stretch.latents.shape[:2])


def _trunk(params: Params, config: DiTConfig, compute: Compute, method: str, *args: Any) -> Any:
    trunk = {name: value for name, value in params.items() if name != "blocks"}
    return apply_module(Trunk(config, compute), trunk, method, *args)


def _remat(body: Callable, compute: Compute) -> Callable:
    if compute.remat == "none":
        return body
    saved = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    policy = saved if compute.remat == "dots" else None
    # `scan` already keeps the compiler from undoing the recomputation.
    return jax.checkpoint(body, policy=policy, prevent_cse=False)
