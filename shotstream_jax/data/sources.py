"""Sources of films with random access: the protocols, and films read from TFDS records.

A `Film` returns only the frames that are requested, so that a clip of a rendered film costs its own
frames and not the whole film. All films of one source have the same number of shots and the same
size, so that they stack into a batch.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from shotstream_jax.typing import HostFrames


@runtime_checkable
class Film(Protocol):
    """A multi-shot film with a caption for every shot."""

    @property
    def captions(self) -> tuple[str, ...]:
        """One for each shot."""
        ...

    @property
    def shot_lengths(self) -> tuple[int, ...]:
        """Video frames of each shot."""
        ...

    def frames(self, shot: int, only: Sequence[int] | None = None) -> HostFrames:
        """All video frames of a shot, or `only` some of them."""
        ...


@runtime_checkable
class FilmSource(Protocol):
    """Films by number."""

    def __len__(self) -> int:
        """Number of films."""
        ...

    def __getitem__(self, index: int) -> Film:
        """One film."""
        ...


class RecordSource:
    """Films of one split of a `story_world` folder, read without TensorFlow."""

    def __init__(self, folder: pathlib.Path, split: str = "train") -> None:
        """Raises: ValueError: a folder that holds no such split, or an empty one."""
        self._folder, self._split = folder, split
        try:
            builder = tfds.builder_from_directory(folder)
            # A decorator of TFDS hides the signature.
            self._records = builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{folder} holds no {split!r} films ({error}); write them with "
                "`StoryWorld(config, data_dir=...).download_and_prepare()`."
            ) from error
        if not len(self._records):
            raise ValueError(f"{folder} has 0 {split!r} films; write some, or take another split.")

    def __len__(self) -> int:
        """Number of films."""
        return len(self._records)

    def __getitem__(self, index: int) -> "StoredFilm":
        """Read one film, pixels and all.

        Raises:
          ValueError: a film whose shots do not all have a caption.
        """
        record = self._records[index]
        captions = tuple(text.decode() for text in record["captions"])
        if len(captions) != len(record["pixels"]):
            raise ValueError(
                f"Film {index} of {self._split!r} in {self._folder} has {len(record['pixels'])} "
                f"shots and {len(captions)} captions; write one caption a shot."
            )
        return StoredFilm(record["pixels"], captions)


@dataclasses.dataclass(frozen=True)
class StoredFilm:
    """A film read from a record.

    Attributes:
      pixels: every video frame of every shot.
      captions: one for each shot.
    """

    pixels: UInt8[np.ndarray, "shot video_frame height width 3"]
    captions: tuple[str, ...]

    @property
    def shot_lengths(self) -> tuple[int, ...]:
        """Video frames of each shot."""
        return (self.pixels.shape[1],) * len(self.pixels)

    def frames(self, shot: int, only: Sequence[int] | None = None) -> HostFrames:
        """All video frames of a shot, or `only` some of them."""
        return self.pixels[shot] if only is None else self.pixels[shot, list(only)]
