"""What filming carries from chunk to chunk, and what a chunk gives: values, no functions."""

import dataclasses

from shotstream_jax.models.cache import ShotCache
from shotstream_jax.models.vae_decoder import DecoderCache
from shotstream_jax.pytree import pytree, static
from shotstream_jax.rollout.chunk import Context
from shotstream_jax.story import Positions
from shotstream_jax.typing import Array, Float, Latents, UInt8

PartPixels = Float[Array, "batch _ height width 3"]
"""Video frames in [-1, 1] that one latent frame shows: one after a cut, a temporal stride later."""

PartFrames = UInt8[Array, "_ height width 3"]
"""The same of one film as 8-bit RGB."""


@pytree
class ShotState:
    """A take in the making.

    Attributes:
      cache: keys and values of the context, and of all chunks that are not pending.
      context: what the context pass has still to write into the cache.
      pending: newest chunks whose clean passes are still to come: one when filming, those since the
        cut when replaying.
      recent: latents of the chunks before those, as many as re-basing commits again.
      decoder: what the autoencoder carries from frame to frame; none before the first frame.
      chunks: chunks since the cut.
      caption: what the next chunk is filmed to.
      recent_captions: what each of `recent` was filmed to.
      rope_shot: shot number that positions carry.
      positions: frame numbers beyond the trained length.
    """

    cache: ShotCache
    context: Context | None
    pending: tuple[Latents, ...]
    recent: tuple[Latents, ...]
    decoder: DecoderCache | None
    # Values of the host: they choose the next program and its chunk number, and as arrays each
    # would have to be waited for.
    chunks: int = static()
    caption: str = static()
    recent_captions: tuple[str, ...] = static()
    rope_shot: int = static()
    positions: Positions = static()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodedChunk:
    """A chunk of a take; its arrays are computed in the background until they are read.

    Attributes:
      latents: latent frames.
      pixels: video frames in [-1, 1], those of each latent frame apart.
      parts: the same as 8-bit RGB: the first can be shown while later ones are being decoded.
    """

    latents: Latents
    pixels: tuple[PartPixels, ...]
    parts: tuple[PartFrames, ...]
