"""From a batch of ids and latents to what the losses are told: encoded captions, and clips.

Every sample has as many captions as its film has shots; each frame says by number which of them it
reads (see conditioning.py).
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from shotstream_jax.models.text_encoder import TextEncoderConfig, encode_tokens
from shotstream_jax.rollout.conditioning import FIRST_SHOT, Conditioning
from shotstream_jax.train.engine.objective import Batch
from shotstream_jax.train.objectives.next_shot import Clip
from shotstream_jax.typing import Array, Float, Int, Key, Params, Text


def read_text(
    params: Params,
    config: TextEncoderConfig,
    batch: Batch,
    *,
    text_tokens: int,
    dtype: DTypeLike = jnp.float32,
) -> Text:
    """Encode the captions of every sample, padded with zeros to `text_tokens` positions."""
    ids, mask = batch["ids"], batch["mask"]
    many, captions, length = ids.shape
    text = encode_tokens(
        params, config, ids.reshape(-1, length), mask.reshape(-1, length), dtype=dtype
    )
    text = jnp.pad(text, ((0, 0), (0, text_tokens - length), (0, 0)))
    return text.reshape(many, captions, text_tokens, -1)


def one_shot(batch: Batch, text: Text) -> Clip:
    """Shots that stand alone: no context frames, one caption."""
    target = batch["target"]
    zeros = jnp.zeros(target.shape[0], jnp.int32)
    none = jnp.zeros((target.shape[0], 0), jnp.int32)
    given = Conditioning(
        context=target[:, :0],
        context_shots=none,
        context_captions=none,
        shot=zeros,
        caption=zeros,
        text=text,
    )
    return Clip(given=given, latents=target)


def excerpt(batch: Batch, text: Text) -> Conditioning:
    """Earlier frames of every sample, and the captions that they and the target read."""
    return shot_conditioning(batch["context"], batch["context_shot"], batch["target_shot"], text)


def shot_conditioning(
    context: Float[Array, "batch frame row col chan"],
    context_shots: Int[Array, "batch frame"],
    shot: Int[Array, " batch"],
    text: Text,
) -> Conditioning:
    """Conditioning of shots by their place in the story: the first is rotated as the second is."""
    return Conditioning(
        context=context,
        context_shots=context_shots,
        context_captions=context_shots,
        shot=jnp.where(shot == 0, FIRST_SHOT, shot),
        caption=shot,
        text=text,
    )


def split_chance(samples: Key[Array, " batch"], parts: int) -> list[Key[Array, " batch"]]:
    """Independent keys for `parts` draws of every sample."""
    keys = jax.vmap(lambda key: jax.random.split(key, parts))(samples)
    return [keys[:, part] for part in range(parts)]
