"""Where films come from: rendered while one waits, or read from records. Both are random access.

A `Film` hands out the frames that it is asked for and no others, so that an excerpt of a rendered
film costs its own frames, not the whole film. All films of one source have the same number of
shots and the same size: a batch from one source is dense.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from shotstream_jax.data.world.captions import prompts
from shotstream_jax.data.world.render import PICTURE, VIDEO_FRAMES, Frames, render_shot
from shotstream_jax.data.world.spec import Split, StorySpec, sample_story
from shotstream_jax.data.world.stage import Picture


@runtime_checkable
class Film(Protocol):
    """A multi-shot film with a caption for every shot."""

    @property
    def captions(self) -> tuple[str, ...]:
        """What the text encoder reads for each shot."""
        ...

    @property
    def shot_lengths(self) -> tuple[int, ...]:
        """Video frames of each shot."""
        ...

    def frames(self, shot: int, only: Sequence[int] | None = None) -> Frames:
        """All video frames of a shot, or `only` some of them."""
        ...


@runtime_checkable
class FilmSource(Protocol):
    """Films by number."""

    def __len__(self) -> int:
        """How many films there are."""
        ...

    def __getitem__(self, index: int) -> Film:
        """One film."""
        ...


@dataclasses.dataclass(frozen=True)
class WorldFilm:
    """A StoryWorld film that is painted when its frames are asked for.

    Attributes:
      spec: the truth about the film.
      picture: size of a video frame.
      video_frames: length of each shot.
    """

    spec: StorySpec
    picture: Picture = PICTURE
    video_frames: int = VIDEO_FRAMES

    @property
    def captions(self) -> tuple[str, ...]:
        """What the text encoder reads for each shot."""
        return prompts(self.spec)

    @property
    def shot_lengths(self) -> tuple[int, ...]:
        """Video frames of each shot."""
        return (self.video_frames,) * len(self.spec.shots)

    def frames(self, shot: int, only: Sequence[int] | None = None) -> Frames:
        """All video frames of a shot, or `only` some of them."""
        return render_shot(
            self.spec, shot, video_frames=self.video_frames, picture=self.picture, only=only
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldSource:
    """StoryWorld films drawn from a seed, any of them at any time.

    Attributes:
      stories: how many films.
      shots: shots of every film.
      seed: where randomness starts.
      split: films of two splits are never drawn from the same random numbers.
      picture: size of a video frame.
      video_frames: length of each shot.
    """

    stories: int
    shots: int
    seed: int = 0
    split: Split = "train"
    picture: Picture = PICTURE
    video_frames: int = VIDEO_FRAMES

    def __len__(self) -> int:
        """How many films there are."""
        return self.stories

    def __getitem__(self, index: int) -> WorldFilm:
        """Draw one film; its frames are not painted yet.

        Raises:
          IndexError: there is no such film.
        """
        if not 0 <= index < self.stories:
            raise IndexError(f"Film {index} of {self.stories}: films count from 0.")
        spec = sample_story(self.seed, self.shots, self.split, index=int(index))
        return WorldFilm(spec, self.picture, self.video_frames)


class RecordSource:
    """Films of one split of a `story_world` folder, read without TensorFlow."""

    def __init__(self, folder: pathlib.Path, split: Split = "train") -> None:
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
        """How many films there are."""
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
      captions: what the text encoder reads for each shot.
    """

    pixels: UInt8[np.ndarray, "shot video_frame height width 3"]
    captions: tuple[str, ...]

    @property
    def shot_lengths(self) -> tuple[int, ...]:
        """Video frames of each shot."""
        return (self.pixels.shape[1],) * len(self.pixels)

    def frames(self, shot: int, only: Sequence[int] | None = None) -> Frames:
        """All video frames of a shot, or `only` some of them."""
        return self.pixels[shot] if only is None else self.pixels[shot, list(only)]
