"""Shapes of what batches hold, known before there are data: programs are lowered from them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchShapes:
    """Sizes of a batch of shots.

    Attributes:
      batch: samples.
      clip: frames, rows, columns and channels of a shot's latents.
      budget: context frames.
      captions: captions of a sample: shots of its film.
      text_tokens: positions of a caption.
    """

    batch: int
    clip: tuple[int, int, int, int]
    budget: int
    captions: int
    text_tokens: int

    def latents(self, *axes: int, frames: int | None = None) -> jax.ShapeDtypeStruct:
        """Latents, with more axes before the frames."""
        shape = (frames or self.clip[0], *self.clip[1:])
        return jax.ShapeDtypeStruct((self.batch, *axes, *shape), jnp.float32)

    def numbers(self, *axes: int) -> jax.ShapeDtypeStruct:
        """Whole numbers, one a sample or more."""
        return jax.ShapeDtypeStruct((self.batch, *axes), jnp.int32)

    def text(self, captions: int | None = None) -> dict[str, Any]:
        """Captions as ids; `captions` a sample if it is not one a shot."""
        size = (self.batch, captions or self.captions, self.text_tokens)
        return {
            "ids": jax.ShapeDtypeStruct(size, jnp.int32),
            "mask": jax.ShapeDtypeStruct(size, jnp.bool_),
        }

    def given(self) -> dict[str, Any]:
        """What a shot is made from: its place, context frames, captions."""
        return {
            "target_shot": self.numbers(),
            "context": self.latents(frames=self.budget),
            "context_shot": self.numbers(self.budget),
            **self.text(),
        }

    def excerpt(self) -> dict[str, Any]:
        """Target shots with what they are made from."""
        return {"target": self.latents(), **self.given()}
