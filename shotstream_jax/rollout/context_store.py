"""Frames of earlier shots that later ones may ask for, kept as pixels and encoded when asked for.

What is evicted, and when, is decided by the owner of the film (`keep`): an offline film keeps what
its remaining plans name, a session may keep everything, or read frames back from its folder.
"""

from collections.abc import Callable, Collection
from typing import Protocol, runtime_checkable

from shotstream_jax.story import TakeFrame
from shotstream_jax.typing import Array, Float, Latents

Frame = Float[Array, "height width 3"]
"""One video frame in [-1, 1]."""


@runtime_checkable
class FrameStore(Protocol):
    """Where a cut takes its context frames from."""

    def latent(self, frame: TakeFrame) -> Latents:
        """A video frame, encoded as one latent frame.

        Raises:
          ValueError: a frame that is not there.
        """
        ...


class ContextFrameStore:
    """Context frames of one film in memory."""

    def __init__(self, encode: Callable[[Frame], Latents]):
        """Create an empty store; `encode` makes one latent frame of one video frame."""
        self._encode = encode
        self._pixels: dict[TakeFrame, Frame] = {}
        self._latents: dict[TakeFrame, Latents] = {}

    def put(self, frame: TakeFrame, pixels: Frame, latent: Latents | None = None) -> None:
        """Add a frame, or replace it; `latent` stands in for what encoding it would give."""
        self._pixels[frame] = pixels
        self._latents.pop(frame, None)
        if latent is not None:
            self._latents[frame] = latent

    def latent(self, frame: TakeFrame) -> Latents:
        """A frame encoded by itself, once; later calls return the same array.

        Raises:
          ValueError: a frame that is not in the store.
        """
        if frame not in self._latents:
            if frame not in self._pixels:
                raise ValueError(
                    f"Frame {frame.frame} of shot {frame.shot_id} (take {frame.take}) is context "
                    "of the next shot and is not in the store; film or replay that take first."
                )
            self._latents[frame] = self._encode(self._pixels[frame])
        return self._latents[frame]

    def keep(self, frames: Collection[TakeFrame]) -> None:
        """Evict all other frames."""
        self._pixels = {frame: self._pixels[frame] for frame in self._pixels if frame in frames}
        self._latents = {frame: self._latents[frame] for frame in self._latents if frame in frames}

    def __len__(self) -> int:
        """Video frames in the store."""
        return len(self._pixels)
