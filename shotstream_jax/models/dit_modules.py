"""The modules of the diffusion transformer: embeddings, one block and its layers, the head.

Embeddings, block and head have one `__call__` each; `apply_module` makes it a plain, typed function
of its parameters. A block receives its self-attention pattern (`attention.py`) as an argument.

Statistics, modulation and residual sums are float32; matrix products run in `Compute.dtype`.

Source: public Wan2.1 and ShotStream repositories, wan/modules/model.py.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from shotstream_jax.models.attention import AttentionPattern, Heads, attend
from shotstream_jax.models.cache import CachedKeyValue, KeyValue, TextKeys
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.models.quantise import dequantise
from shotstream_jax.models.rope import Rotation, rotate
from shotstream_jax.pytree import pytree
from shotstream_jax.typing import Array, Float, Int, Latents, Params, Text, Timesteps

# Wan2.1 uses one epsilon for every norm of the transformer.
EPSILON = 1e-6

Stream = Float[Array, "batch frame patch dim"]
"""The residual stream."""

EmbeddedText = Float[Array, "batch caption text_token dim"]
TimeEmbedding = Float[Array, "batch #frame dim"]
BlockModulation = Float[Array, "batch #frame 6 dim"]
"""Shift, scale and gate of self-attention, then of the feed-forward layer."""

CaptionIndex = Int[Array, "batch frame"]
"""Which of the captions each frame reads."""

P = ParamSpec("P")
R = TypeVar("R")


def apply_module(module: Callable[P, R], params: Params, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a Linen module as a function of its parameters, some of which may be in 8 bits."""
    variables = {"params": dequantise(params)}
    return cast(R, cast(nn.Module, module).apply(variables, *args, **kwargs))


class PatchEmbedding(nn.Module):
    """Latents to the residual stream."""

    config: DiTConfig
    compute: Compute

    @nn.compact
    def __call__(self, latents: Latents) -> Stream:
        """Cut latents into patches, row-major, and project them."""
        q, r = self.config.patch
        cut = "batch frame (row q) (col r) chan -> batch frame (row col) (q r chan)"
        linear = nn.Dense(self.config.dim, dtype=self.compute.dtype, name="patch_embedding")
        return linear(rearrange(latents, cut, q=q, r=r))


class TimestepEmbedding(nn.Module):
    """Timesteps to what modulates the head and the blocks."""

    config: DiTConfig

    @nn.compact
    def __call__(self, timesteps: Timesteps) -> tuple[TimeEmbedding, BlockModulation]:
        """Embed each frame's timestep, and project it to the modulation that all blocks share."""
        dim = self.config.dim
        # A handful of rows that scale and shift every token: float32 costs nothing here, and a
        # bfloat16 timestep could not tell 740 from 741.
        wave = sinusoid(timesteps, self.config.freq_dim)
        hidden = nn.silu(nn.Dense(dim, dtype=jnp.float32, name="time_in")(wave))
        time = nn.Dense(dim, dtype=jnp.float32, name="time_out")(hidden)
        projection = nn.Dense(6 * dim, dtype=jnp.float32, name="time_projection")
        return time, projection(nn.silu(time)).reshape(*timesteps.shape, 6, dim)


class TextEmbedding(nn.Module):
    """Encoded captions to the width of the transformer."""

    config: DiTConfig
    compute: Compute

    @nn.compact
    def __call__(self, text: Text) -> EmbeddedText:
        """Two linear layers; zero padding becomes a constant vector, which is attended to."""
        dim, dtype = self.config.dim, self.compute.dtype
        hidden = nn.gelu(nn.Dense(dim, dtype=dtype, name="text_in")(text), approximate=True)
        return nn.Dense(dim, dtype=dtype, name="text_out")(hidden)


class Head(nn.Module):
    """The residual stream back to latents."""

    config: DiTConfig
    compute: Compute

    @nn.compact
    def __call__(self, x: Stream, time: TimeEmbedding, rows: int) -> Latents:
        """Modulate, project, and lay the patches out in `rows` patch rows."""
        table = self.param("head_modulation", _small_normal, (2, self.config.dim))
        shift, scale = jnp.split(_add_table(table, time[:, :, None]), 2, axis=2)
        # The head has no gate, hence no residual: its two vectors are the time embedding itself.
        hidden = (normalise(x) * (1 + scale) + shift).astype(self.compute.dtype)
        patches = nn.Dense(self.config.patch_channels, dtype=self.compute.dtype, name="head")(
            hidden
        )
        q, r = self.config.patch
        paste = "batch frame (row col) (q r chan) -> batch frame (row q) (col r) chan"
        return rearrange(patches, paste, row=rows, q=q, r=r)


class Block(nn.Module):
    """One layer: self-attention, cross-attention to captions, feed-forward."""

    config: DiTConfig
    compute: Compute

    @nn.compact
    def __call__(
        self,
        x: Stream,
        modulation: BlockModulation,
        rope: Rotation,
        text: TextKeys | EmbeddedText,
        caption_index: CaptionIndex | None,
        attention: AttentionPattern,
        cache: CachedKeyValue | None,
    ) -> tuple[Stream, KeyValue]:
        """The residual stream after this layer, and the keys and values that its tokens have in it.

        `text` is projected here unless it comes as keys and values; `cache` is this layer's part.
        """
        config, dtype = self.config, self.compute.dtype
        table = self.param("modulation", _small_normal, (6, config.dim))
        before, after = _split_modulation(_add_table(table, modulation))

        layer = Attention(config.dim, config.heads, self.compute, name="self_attention")
        hidden = modulate(x, before).astype(dtype)
        key, value = layer.keys_values(hidden)
        # Keys are cached rotated, so a slot may hold any position: the ring needs no order.
        kv = KeyValue(key=rotate(key, rope), value=value)
        mixed = attention(rotate(layer.queries(hidden), rope), kv, cache)
        x = _residual(x, layer.output(mixed).reshape(x.shape), before.gate)

        # Cross-attention has a norm of its own and neither modulation nor gate.
        layer = Attention(config.dim, config.heads, self.compute, name="cross_attention")
        hidden = AffineNorm(config.dim, name="cross_norm")(x).astype(dtype)
        keys = text if isinstance(text, TextKeys) else caption_keys(layer, text)
        x = _residual(x, _read_captions(layer, hidden, keys, caption_index))

        feed_forward = FeedForward(config.dim, config.ffn_dim, self.compute, name="ffn")
        return _residual(x, feed_forward(modulate(x, after).astype(dtype)), after.gate), kv


class Attention(nn.Module):
    """The projections of an attention layer; the mixing itself is `attention.attend`."""

    dim: int
    heads: int
    compute: Compute

    def setup(self) -> None:
        """Name the projections."""

        def linear() -> nn.Dense:
            return nn.Dense(self.dim, dtype=self.compute.dtype)

        self.q, self.k, self.v, self.o = linear(), linear(), linear(), linear()
        # Wan2.1 normalises queries and keys over all heads together, before they are split.
        self.norm_q, self.norm_k = RMSNorm(self.dim), RMSNorm(self.dim)

    def queries(self, x: Float[Array, "batch *tokens dim"]) -> Heads:
        """Normalised queries; all token axes become one."""
        return self._split(self.norm_q(self.q(x)))

    def keys_values(self, x: Float[Array, "batch *tokens dim"]) -> tuple[Heads, Heads]:
        """Normalised keys, and values; all token axes become one."""
        return self._split(self.norm_k(self.k(x))), self._split(self.v(x))

    def output(self, mixed: Heads) -> Float[Array, "batch token dim"]:
        """Project mixed heads back into the residual stream."""
        return self.o(mixed.reshape(*mixed.shape[:2], self.dim))

    def _split(self, x: Float[Array, "batch *tokens dim"]) -> Heads:
        return x.reshape(x.shape[0], -1, self.heads, self.dim // self.heads)


class FeedForward(nn.Module):
    """Two linear layers around a tanh-approximated GELU."""

    dim: int
    hidden: int
    compute: Compute

    @nn.compact
    def __call__(self, x: Float[Array, "*axes dim"]) -> Float[Array, "*axes dim"]:
        """Up-projection to `hidden`, tanh-GELU, down-projection."""
        hidden = nn.Dense(self.hidden, dtype=self.compute.dtype, name="up")(x)
        hidden = nn.gelu(hidden, approximate=True)
        return nn.Dense(self.dim, dtype=self.compute.dtype, name="down")(hidden)


class RMSNorm(nn.Module):
    """Root-mean-square norm over all channels, with a learned scale."""

    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "*axes dim"]) -> Float[Array, "*axes dim"]:
        """Normalise in float32; the result has the input's dtype."""
        scale = self.param("scale", nn.initializers.ones, (self.dim,))
        wide = x.astype(jnp.float32)
        root = jnp.sqrt(jnp.square(wide).mean(axis=-1, keepdims=True) + EPSILON)
        return (wide / root * scale.astype(jnp.float32)).astype(x.dtype)


class AffineNorm(nn.Module):
    """Layer norm with a learned scale and bias."""

    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "*axes dim"]) -> Float[Array, "*axes dim"]:
        """Normalise, scale and shift; the result is float32."""
        scale = self.param("scale", nn.initializers.ones, (self.dim,))
        bias = self.param("bias", nn.initializers.zeros, (self.dim,))
        return normalise(x) * scale.astype(jnp.float32) + bias.astype(jnp.float32)


@pytree
class Modulation:
    """Of one sublayer: `x + gate * layer(norm(x) * (1 + scale) + shift)`."""

    shift: Float[Array, "batch frame 1 dim"]
    scale: Float[Array, "batch frame 1 dim"]
    gate: Float[Array, "batch frame 1 dim"]


def modulate(x: Stream, by: Modulation) -> Stream:
    """Normalise, then scale and shift each frame by its timestep."""
    return normalise(x) * (1 + by.scale) + by.shift


def normalise(x: Float[Array, "*axes dim"]) -> Float[Array, "*axes dim"]:
    """Layer norm without parameters, in float32."""
    x = x.astype(jnp.float32)
    # Mean first, then squares of differences: E[x^2] - E[x]^2 would cancel where the mean is large
    # against the spread.
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + EPSILON)


def sinusoid(timesteps: Float[Array, "*axes"], dim: int) -> Float[Array, "*axes dim"]:
    """Sinusoidal embedding of timesteps in [0, 1000]: all cosines, then all sines."""
    # 10000 and cosines before sines: the released weights read this order of channels.
    frequency = jnp.asarray(10000.0 ** (-np.arange(dim // 2) / (dim // 2)), jnp.float32)
    angle = timesteps[..., None].astype(jnp.float32) * frequency
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def caption_keys(layer: Attention, text: EmbeddedText) -> TextKeys:
    """Cross-attention keys and values of embedded captions, in one layer."""
    split = "batch (caption token) head dim -> batch caption token head dim"
    key, value = (rearrange(x, split, caption=text.shape[1]) for x in layer.keys_values(text))
    return TextKeys(key=key, value=value)


def _read_captions(
    layer: Attention, hidden: Stream, text: TextKeys, caption_index: CaptionIndex | None
) -> Stream:
    """Every frame attends to its own caption, padding included, as the public models do."""
    shape, compute = hidden.shape, layer.compute
    key, value = text.key, text.value
    if key.shape[1] == 1:
        key, value = key[:, 0], value[:, 0]
    else:
        # Frames join the batch, so that each can have keys of its own.
        hidden = rearrange(hidden, "batch frame patch dim -> (batch frame) patch dim")
        pick = jax.vmap(lambda captions, index: captions[index])
        key, value = (
            rearrange(pick(kv, caption_index), "batch frame ... -> (batch frame) ...")
            for kv in (key, value)
        )
    how = {"backend": compute.attention, "mesh": compute.mesh}
    mixed = attend(layer.queries(hidden), key, value, **how)
    return layer.output(mixed).reshape(shape)


def _split_modulation(six: Float[Array, "batch frame 6 dim"]) -> tuple[Modulation, Modulation]:
    # The order of the checkpoint: shift, scale, gate of self-attention, then of the feed-forward.
    rows = jnp.split(six, 6, axis=2)
    return (
        Modulation(shift=rows[0], scale=rows[1], gate=rows[2]),
        Modulation(shift=rows[3], scale=rows[4], gate=rows[5]),
    )


def _residual(x: Stream, update: Stream, gate: Float[Array, "..."] | None = None) -> Stream:
    # Gate, product and sum in float32, as under the public code's autocast: one rounding, at the
    # end, where the stream is bfloat16.
    update = update.astype(jnp.float32)
    update = update if gate is None else gate * update
    return (x.astype(jnp.float32) + update).astype(x.dtype)


def _add_table(table: Float[Array, "rows dim"], time: Float[Array, "..."]) -> Float[Array, "..."]:
    return table.astype(jnp.float32) + time


def _small_normal(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    # Standard deviation dim^-1/2, as Wan2.1 draws its modulation tables.
    return jax.random.normal(key, shape, dtype) * shape[-1] ** -0.5
