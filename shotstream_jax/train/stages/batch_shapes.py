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
      slots: context slots.
      text_tokens: positions of a caption.
    """

    batch: int
    clip: tuple[int, int, int, int]
    slots: int
    text_tokens: int

    def latents(self, *axes: int, frames: int | None = None) -> jax.ShapeDtypeStruct:
        """Latents, with more axes before the frames."""
        shape = (frames or self.clip[0], *self.clip[1:])
        # Float32 as transforms return them, whatever they were stored as or networks compute in.
        return jax.ShapeDtypeStruct((self.batch, *axes, *shape), jnp.float32)

    def integers(self, *axes: int) -> jax.ShapeDtypeStruct:
        """Whole numbers, one a sample or more."""
        return jax.ShapeDtypeStruct((self.batch, *axes), jnp.int32)

    def captions(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Token ids and mask of `count` captions a sample."""
        size = (self.batch, count, self.text_tokens)
        return {
            "ids": jax.ShapeDtypeStruct(size, jnp.int32),
            "mask": jax.ShapeDtypeStruct(size, jnp.bool_),
        }

    def conditioning(self) -> dict[str, Any]:
        """What a shot is made from: its place, context frames, and captions by slot."""
        return {
            "target_shot": self.integers(),
            "context": self.latents(frames=self.slots),
            "context_shot": self.integers(self.slots),
            # A caption for each slot, and the shot's own last.
            **self.captions(self.slots + 1),
        }

    def shots(self) -> dict[str, Any]:
        """Target shots with what they are made from."""
        return {"target": self.latents(), **self.conditioning()}
