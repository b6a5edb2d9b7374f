"""The text encoder: UMT5, encoder only, as a pure function of parameters and token ids.

Attention is bidirectional within a caption, has no 1/sqrt(head_dim), and encodes positions only by
a learned bias per (distance bucket, head), with one table a layer. Short distances have a bucket
each, longer ones share logarithmically wider buckets; keys before and after a query differ:

    key - query   -91+ -64 -46 -32 -23 -16 -12 -8 -7 .. -1  0  1 .. 7  8 12 16 23 32 46 64 91+
    bucket          15  14  13  12  11  10   9  8  7 ..  1  0 17 .. 23 24 25 26 27 28 29 30 31

Matrix products run in `dtype`; the residual stream, norms, logits and softmax are float32, since
unscaled logits grow too large for the 8-bit significand of bfloat16.

Source: Raffel et al. 2020 (T5), Chung et al. 2023 (UMT5); public Wan2.1 repository,
wan/modules/t5.py, T5Encoder.
"""

import functools
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shotstream_jax.models.configs import TextEncoderConfig
from shotstream_jax.typing import Array, Bool, Float, Int, Key, Params, Text

Hidden = Float[Array, "caption text_token dim"]
Visible = Bool[Array, "caption text_token"]
Buckets = Int[np.ndarray, "query key"]


def init_text_encoder(key: Key[Array, ""], config: TextEncoderConfig) -> Params:
    """Draw float32 parameters; every array under `blocks` leads with a layer axis."""
    keys = jax.random.split(key, config.layers + 1)

    def init_block(block_key: Key[Array, ""]) -> Params:
        hidden, visible = jnp.zeros((1, 1, config.dim)), jnp.ones((1, 1), bool)
        return EncoderBlock(config).init(block_key, hidden, distance_buckets(1, config), visible)[
            "params"
        ]

    return {
        "token_embedding": {"embedding": jax.random.normal(keys[0], (config.vocab, config.dim))},
        "blocks": jax.vmap(init_block)(keys[1:]),
        "norm": {"scale": jnp.ones(config.dim)},
    }


def encode_tokens(
    params: Params,
    config: TextEncoderConfig,
    ids: Int[Array, "caption text_token"],
    mask: Visible,
    *,
    dtype: DTypeLike = jnp.float32,
) -> Hidden:
    """Encode captions; `mask` marks their tokens, which come first, and all else is exactly zero.

    An id beyond the embedding table encodes as NaN.
    """
    buckets = distance_buckets(ids.shape[1], config)

    def layer(hidden: Hidden, block: Params) -> tuple[Hidden, None]:
        return _apply(EncoderBlock(config, dtype), block, hidden, buckets, mask), None

    # XLA would clamp an id outside the table; `jnp.take` fills with NaN, which is noticed.
    hidden = jnp.take(params["token_embedding"]["embedding"], ids, axis=0).astype(jnp.float32)
    hidden, _ = jax.lax.scan(layer, hidden, params["blocks"])
    # Wan2.1's transformer attends to the padding, and was trained with zeros there.
    encoded = _apply(_norm(dtype), params["norm"], hidden)
    return jnp.where(mask[:, :, None], encoded, jnp.zeros((), dtype))


def encode_padded(
    params: Params,
    config: TextEncoderConfig,
    ids: Int[Array, "batch caption text_token"],
    mask: Bool[Array, "batch caption text_token"],
    *,
    text_tokens: int,
    dtype: DTypeLike = jnp.float32,
) -> Text:
    """Encode the captions of every sample, padded with zeros to `text_tokens` positions.

    The transformer attends to all positions, padding included, as the released one was trained.
    """
    many, captions, length = ids.shape
    flat = ids.reshape(-1, length), mask.reshape(-1, length)
    text = encode_tokens(params, config, *flat, dtype=dtype)
    text = jnp.pad(text, ((0, 0), (0, text_tokens - length), (0, 0)))
    return text.reshape(many, captions, text_tokens, -1)


def distance_buckets(tokens: int, config: TextEncoderConfig) -> Buckets:
    """The bucket of every (query, key) pair of positions, as the module drawing has it."""
    # T5's rule: half of the buckets for keys ahead; of each half, the lower half is exact.
    half, near = config.buckets // 2, config.buckets // 4
    far = half - near
    # Bucket near + n starts at the first distance d with (d / near)^far >= (max_distance / near)^n.
    # Integers decide that exactly; logarithms would round at distances such as 16 and 32.
    starts = list(range(1, near))
    for n in range(far):
        least = config.max_distance**n * near ** (far - n)
        starts.append(next(d for d in range(near, config.max_distance + 1) if d**far >= least))
    ahead = np.arange(tokens)[None, :] - np.arange(tokens)[:, None]
    bucket = np.searchsorted(starts, np.abs(ahead), side="right")
    return np.where(ahead > 0, half + bucket, bucket).astype(np.int32)


class EncoderAttention(nn.Module):
    """Self-attention of one layer, with its own table of distance biases."""

    config: TextEncoderConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, hidden: Hidden, buckets: Buckets, visible: Visible) -> Hidden:
        """Attend from every position to the visible ones."""
        config = self.config
        dense = functools.partial(nn.Dense, use_bias=False, dtype=self.dtype)
        split = (*hidden.shape[:2], config.heads, config.head_dim)
        # T5 folds 1/sqrt(head_dim) into the initial scale of the query projection.
        small = nn.initializers.variance_scaling(1 / config.head_dim, "fan_in", "normal")
        q = dense(config.attention_dim, kernel_init=small, name="q")(hidden).reshape(split)
        k = dense(config.attention_dim, name="k")(hidden).reshape(split)
        v = dense(config.attention_dim, name="v")(hidden).reshape(split)
        bias = self.param(
            "position_bias",
            nn.initializers.normal(config.dim**-0.5),
            (config.buckets, config.heads),
        )
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
        logits = logits + bias.astype(jnp.float32)[buckets].transpose(2, 0, 1)
        # The most negative finite number and not -inf: a caption without tokens stays finite.
        logits = jnp.where(visible[:, None, None, :], logits, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        return dense(config.dim, name="o")(mixed.reshape(*hidden.shape[:2], -1))


class EncoderFeedForward(nn.Module):
    """Two hidden layers, one gating the other through a tanh-approximated GELU."""

    config: TextEncoderConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, hidden: Hidden) -> Hidden:
        """Transform each position independently."""
        dense = functools.partial(nn.Dense, use_bias=False, dtype=self.dtype)
        gate = jax.nn.gelu(dense(self.config.ffn_dim, name="gate")(hidden), approximate=True)
        up = dense(self.config.ffn_dim, name="up")(hidden)
        return dense(self.config.dim, name="down")(up * gate)


class EncoderBlock(nn.Module):
    """One layer: attention, then feed-forward, each on a normalised copy of the residual stream."""

    config: TextEncoderConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, hidden: Hidden, buckets: Buckets, visible: Visible) -> Hidden:
        """Add both to the residual stream."""
        attention = EncoderAttention(self.config, self.dtype, name="attention")
        hidden = hidden + attention(_norm(self.dtype, "norm1")(hidden), buckets, visible)
        feed_forward = EncoderFeedForward(self.config, self.dtype, name="ffn")
        return hidden + feed_forward(_norm(self.dtype, "norm2")(hidden))


def _norm(dtype: DTypeLike, name: str | None = None) -> nn.RMSNorm:
    """T5's layer norm: divide by the root mean square; no mean, no bias."""
    return nn.RMSNorm(epsilon=1e-6, dtype=dtype, name=name)


def _apply(module: nn.Module, params: Params, *inputs: Hidden | Buckets | Visible) -> Hidden:
    """Call a stateless layer as a function of its parameters."""
    return typing.cast(Hidden, module.apply({"params": params}, *inputs))
