"""Batch preprocessing: encode captions, and build the conditioning of a batch of shots."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from shotstream_jax.models.configs import TextEncoderConfig
from shotstream_jax.models.text_encoder import encode_tokens
from shotstream_jax.rollout.conditioning import FIRST_SHOT, Conditioning
from shotstream_jax.train.engine.objective import Batch
from shotstream_jax.train.objectives.next_shot import Clip
from shotstream_jax.typing import Array, Key, Params, Text


def encode_caption_ids(
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


def single_shot_clip(batch: Batch, text: Text) -> Clip:
    """Clips of shots that stand alone: no context slots, one caption."""
    target = batch["target"]
    conditioning = Conditioning(
        context=target[:, :0],
        context_shots=jnp.zeros((target.shape[0], 0), jnp.int32),
        # Text-to-video models know no shots: no jump of the rotary phase.
        shot=jnp.zeros(target.shape[0], jnp.int32),
        text=text,
    )
    return Clip(conditioning=conditioning, latents=target)


def shot_conditioning(batch: Batch, text: Text) -> Conditioning:
    """Conditioning of a batch's shots; the first of a story is rotated as the second is.

    Args:
      batch: `context`, `context_shot` and `target_shot` of every sample.
      text: encoded captions by context slot, then the shot's own.
    """
    shot = batch["target_shot"]
    return Conditioning(
        context=batch["context"],
        context_shots=batch["context_shot"],
        shot=jnp.where(shot == 0, FIRST_SHOT, shot),
        text=text,
    )


def split_chance(samples: Key[Array, " batch"], parts: int) -> list[Key[Array, " batch"]]:
    """Independent keys for `parts` draws of every sample."""
    keys = jax.vmap(lambda key: jax.random.split(key, parts))(samples)
    return [keys[:, part] for part in range(parts)]
