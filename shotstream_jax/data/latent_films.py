"""Films as latents, encoded once: the training data of every stage after the autoencoder.

A shot is stored twice. As a clip, encoded whole, it is a training target. Those of its frames that
a later shot may have in its context are also stored as references, each encoded as a picture by
itself, because that is how context frames reach the network.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from shotstream_jax.data.shards import ShardReader
from shotstream_jax.story import CONTEXT_BUDGET, FrameRef, context_candidates

LATENT_FILMS = "latent_films"

HostLatents = Float[np.ndarray, "frame row col chan"]


@dataclasses.dataclass(frozen=True)
class LatentFilm:
    """A film without pixels.

    Attributes:
      captions: one for each shot.
      clips: every shot, encoded whole.
      references: possible context frames of every shot, encoded one by one.
      reference_frames: their numbers among the video frames, the same in every shot.
      video_frames: of every shot.
    """

    captions: tuple[str, ...]
    clips: Float[np.ndarray, "shot frame row col chan"]
    references: Float[np.ndarray, "shot reference row col chan"]
    reference_frames: tuple[int, ...]
    video_frames: int

    @property
    def shot_lengths(self) -> tuple[int, ...]:
        """Video frames of each shot."""
        return (self.video_frames,) * len(self.captions)

    def context(self, refs: Sequence[FrameRef]) -> HostLatents:
        """Context frames, one latent frame each.

        Raises:
          ValueError: a frame that was not encoded as a reference.
        """
        for ref in refs:
            if ref.frame not in self.reference_frames:
                raise ValueError(
                    f"Frame {ref.frame} of shot {ref.shot} was not encoded, only frames "
                    f"{self.reference_frames}; make the latents again for this context."
                )
        places = [self.reference_frames.index(ref.frame) for ref in refs]
        return self.references[[ref.shot for ref in refs], places]


class LatentFilms:
    """The films of a folder of latents, by number."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Raises: ValueError: no folder of latents, or one that is not complete."""
        self._reader = ShardReader(folder, LATENT_FILMS)
        self.facts: Mapping[str, Any] = self._reader.facts

    def __len__(self) -> int:
        """Number of films."""
        return len(self._reader)

    def __getitem__(self, index: int) -> LatentFilm:
        """Read one film."""
        fields = self._reader[index]
        return LatentFilm(
            captions=tuple(str(caption) for caption in fields["captions"]),
            # Stored in half precision; losses and noise are computed in single precision.
            clips=fields["clips"].astype(np.float32),
            references=fields["references"].astype(np.float32),
            reference_frames=tuple(self.facts["reference_frames"]),
            video_frames=self.facts["video_frames"],
        )


def reference_frames(video_frames: int, budget: int = CONTEXT_BUDGET) -> tuple[int, ...]:
    """Video frames of a shot that any later shot of its film may have in its context."""
    return context_candidates(video_frames, 1, budget)
