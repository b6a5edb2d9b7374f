"""StoryWorld as a dataset on disk: the TFDS builder `story_world`.

It writes ArrayRecord files and reads them without TensorFlow. Every record holds a film's pixels,
its full captions and its spec, so that a stored film can be scored against its truth.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from shotstream_jax.storyworld.captions import prompts
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.render import VIDEO_FRAMES, render_shot
from shotstream_jax.storyworld.spec import SPLITS, ShotSpec, Split, StorySpec, sample_story

_Example = Mapping[str, Any]


@dataclasses.dataclass(kw_only=True)
class StoryWorldConfig(tfds.core.BuilderConfig):
    """Sizes of the dataset.

    Attributes:
      name: folder of this configuration; made from the sizes.
      height: pixels.
      width: pixels.
      video_frames: length of every shot.
      shots: shots of every film.
      train: films of the training split.
      validation: films of the validation split.
      test: films of the test split.
      seed: PRNG seed of all films.
    """

    name: str = ""
    # The size of the tiny model: at 64 rows a body in a wide shot still has a radius of 13 pixels
    # and an eye one of 2.5. These 4096 films are 4.8 GB of pixels and a tenth of that on disk.
    height: int = 64
    width: int = 96
    video_frames: int = VIDEO_FRAMES
    shots: int = 3
    train: int = 4096
    validation: int = 128
    test: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        """Name the configuration.

        Raises:
          ValueError: a frame size that StoryWorld does not support, or a split without films.
        """
        for split in SPLITS:
            if getattr(self, split) < 1:
                raise ValueError(
                    f"{split} {getattr(self, split)}: a dataset has 1 film or more in every split."
                )
        Picture(height=self.height, width=self.width)
        size = f"{self.shots}x{self.video_frames}x{self.height}x{self.width}"
        films = f"{self.train}-{self.validation}-{self.test}"
        self.name = self.name or f"{size}_{films}_seed{self.seed}"


class StoryWorld(tfds.core.GeneratorBasedBuilder):
    """Procedural multi-shot films, drawn and painted from a seed."""

    # Raise the major number when the painter, the captions or the draw of a spec change: TFDS then
    # writes new files instead of reading films whose spec no longer says what they show.
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [StoryWorldConfig()]

    # TFDS 4.9.10 looks for checksums of downloads beside this file, with a library that it does not
    # require to be installed. Nothing is downloaded here.
    code_path = None

    def __init__(self, **settings: Any) -> None:
        # ArrayRecord is read at random by grain without TensorFlow; TFDS's default, TFRecord, is
        # not.
        super().__init__(**{"file_format": "array_record", **settings})

    @property
    def _sizes(self) -> StoryWorldConfig:
        if not isinstance(self.builder_config, StoryWorldConfig):
            raise TypeError(f"story_world takes a StoryWorldConfig, not {self.builder_config!r}.")
        return self.builder_config

    def _info(self) -> tfds.core.DatasetInfo:
        sizes = self._sizes
        shape = (sizes.shots, sizes.video_frames, sizes.height, sizes.width, 3)
        features = tfds.features.FeaturesDict(
            {
                # Frames of one shot are alike; zlib stores a film in a tenth of its size.
                "pixels": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="zlib"),
                "captions": tfds.features.Sequence(tfds.features.Text()),
                "spec": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Multi-shot films with ground truth: see shotstream_jax.storyworld.",
            features=features,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[Split, Iterator[tuple[int, _Example]]]:
        del dl_manager
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: Split) -> Iterator[tuple[int, _Example]]:
        sizes = self._sizes
        picture = Picture(height=sizes.height, width=sizes.width)
        for index in range(getattr(sizes, split)):
            spec = sample_story(sizes.seed, sizes.shots, split, index=index)
            shots = [
                render_shot(spec, shot, video_frames=sizes.video_frames, picture=picture)
                for shot in range(sizes.shots)
            ]
            record = {
                "pixels": np.stack(shots),
                "captions": list(prompts(spec)),
                "spec": json.dumps(dataclasses.asdict(spec)),
            }
            yield index, record


def read_spec(text: str) -> StorySpec:
    """The spec of a record.

    Raises:
      ValueError: not a spec, or one of another version of StoryWorld.
    """
    try:
        fields = json.loads(text)
        shots = tuple(ShotSpec(**shot) for shot in fields.pop("shots"))
        return StorySpec(shots=shots, **fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{text!r} is not a StoryWorld spec ({error}); write it again.") from error
