"""StoryWorld films as a source of training data, painted only when their frames are asked for."""

import dataclasses
from collections.abc import Sequence

from shotstream_jax.storyworld.captions import prompts
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.render import PICTURE, VIDEO_FRAMES, render_shot
from shotstream_jax.storyworld.spec import Split, StorySpec, sample_story
from shotstream_jax.typing import HostFrames


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

    def frames(self, shot: int, only: Sequence[int] | None = None) -> HostFrames:
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
      seed: PRNG seed of all films.
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
