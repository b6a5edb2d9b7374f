"""From captions to text embeddings: tokenizer, text encoder and a cache bound into one callable.

Captions do not attend to one another, so each is encoded alone, once, by one compiled program of
one shape; a rollout asks for every caption of a story at every shot and finds it in the cache.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from shotstream_jax.data.tokenizer import Tokenizer
from shotstream_jax.models.configs import TextEncoderConfig
from shotstream_jax.models.text_encoder import encode_tokens
from shotstream_jax.typing import Array, Float, Params

# Stories have tens of shots; a session that edits captions for hours must not fill the device.
CAPTIONS = 64
"""Captions kept by default: 256 MiB of UMT5-XXL in bfloat16."""

encode_caption_tokens = jax.jit(encode_tokens, static_argnames=("config", "dtype"))
"""The program that encodes captions; plans compile this very function."""

EncodeCaption = Callable[[str], Float[Array, "text_token text_dim"]]


class CaptionCache:
    """Encodes captions, each at most once while it is among the `capacity` most recently used."""

    def __init__(self, encode: EncodeCaption, capacity: int = CAPTIONS) -> None:
        """Raises: ValueError: a capacity that holds nothing."""
        if capacity < 1:
            raise ValueError(f"A cache of {capacity} captions holds none; ask for 1 or more.")
        # An instance's own cache, not a decorated method's, which would keep every encoder alive.
        self._encode = functools.lru_cache(maxsize=capacity)(encode)

    def __call__(self, captions: Sequence[str]) -> Float[Array, "caption text_token text_dim"]:
        """Encode captions, in order; a caption may come twice.

        Raises:
          ValueError: no captions at all.
        """
        if not captions:
            raise ValueError("0 captions to encode; give 1 or more (an empty string is a caption).")
        return jnp.stack([self._encode(caption) for caption in captions])

    def __len__(self) -> int:
        return self._encode.cache_info().currsize


def text_encoder_fn(
    params: Params,
    config: TextEncoderConfig,
    tokenizer: Tokenizer,
    *,
    text_tokens: int,
    dtype: DTypeLike = jnp.float32,
    capacity: int = CAPTIONS,
) -> CaptionCache:
    """Bind an encoder to its tokenizer: captions in, text of `text_tokens` positions out.

    Positions behind a caption are zero. A caption too long for the tokenizer is a ValueError.

    Raises:
      ValueError: a tokenizer with more ids than the encoder, or with longer captions than fit.
    """
    if tokenizer.size > config.vocab:
        raise ValueError(
            f"The tokenizer has {tokenizer.size} ids and the text encoder {config.vocab}; "
            "take both from one release."
        )
    if tokenizer.length > text_tokens:
        raise ValueError(
            f"The tokenizer writes {tokenizer.length} tokens and {text_tokens} fit the network; "
            f"load it with length={text_tokens}."
        )

    def encode_caption(caption: str) -> Float[Array, "text_token text_dim"]:
        ids, mask = tokenizer.tokenize([caption])
        text = encode_caption_tokens(params, config, ids, mask, dtype=dtype)[0]
        # The transformer attends to all positions, padding included, as the released one was
        # trained.
        return jnp.pad(text, ((0, text_tokens - tokenizer.length), (0, 0)))

    return CaptionCache(encode_caption, capacity)
