"""The modules of the diffusion transformer: the trunk around the blocks, and one block.

Self-attention is cut in two (`project`, `finish`) so that whoever runs the layers decides what
queries see: other frames, levels of frames, or a cache.

Source: public Wan2.1 and ShotStream repositories, wan/modules/model.py.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from shotstream_jax.models.attention import attend
from shotstream_jax.models.cache import TextKeys
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
from shotstream_jax.models.quantise import widen
from shotstream_jax.models.rope import Rotation
from shotstream_jax.typing import Array, Float, Int, Latents, Params, Text, Timesteps

CaptionIndex = Int[Array, "batch frame"]
"""Which of the captions each frame reads."""


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
    ) -> tuple[Float[Array, " batch #frame dim"], Float[Array, " batch #frame 6 dim"]]:
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

    def unpatch(self, x: Stream, time: Float[Array, " batch #frame dim"], rows: int) -> Latents:
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
        self, x: Stream, time: Float[Array, " batch #frame 6 dim"], angles: Rotation
    ) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values of self-attention."""
        before, _ = self._modulations(time)
        return self.self_attention.rotated(modulate(x, before).astype(self.compute.dtype), angles)

    def finish(
        self,
        x: Stream,
        time: Float[Array, " batch #frame 6 dim"],
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
        time: Float[Array, " batch #frame 6 dim"],
        angles: Rotation,
        text: Float[Array, "batch caption text_token dim"],
    ) -> Stream:
        """Touch every parameter once, to initialise them."""
        _, _, value = self.project(x, time, angles)
        return self.finish(x, time, value, self.text_keys(text), None)

    def _modulations(
        self, time: Float[Array, " batch #frame 6 dim"]
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
        how = {"backend": self.compute.attention, "mesh": self.compute.mesh}
        mixed = attend(self.cross_attention.queries(hidden), key, value, **how)
        return self.cross_attention.output(mixed).reshape(x.shape)


def apply_module(module: "Trunk | Block", params: Params, method: str, *args: Any) -> Any:
    """A Linen module as a plain function of its parameters, some of which may be in 8 bits."""
    wide = widen(params, module.compute.dtype)
    return module.apply({"params": wide}, *args, method=method)


def _residual(x: Stream, update: Stream, gate: Float[Array, "..."] | None = None) -> Stream:
    update = update.astype(jnp.float32)
    update = update if gate is None else gate * update
    return (x.astype(jnp.float32) + update).astype(x.dtype)


def _add(table: Float[Array, "rows dim"], time: Float[Array, "..."]) -> Float[Array, "..."]:
    return table.astype(jnp.float32) + time


def _small_normal(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    return jax.random.normal(key, shape, dtype) * shape[-1] ** -0.5
