"""Settings of a film that come from elsewhere than its story: a command's options, a model's own.

Both are pure: a story and settings go in, another story comes out.
"""

import dataclasses

from shotstream_jax.story.story import Defaults, Story
from shotstream_jax.story.story_files import StoryFile


def overridden(
    story: Story,
    *,
    size: tuple[int, int] | None = None,
    seed: int | None = None,
    fps: int | None = None,
    chunks: int | None = None,
) -> Story:
    """The story with other settings for the whole film; what is `None` stays.

    A seed or a number of chunks holds for every shot, also for those that have their own.

    Raises:
      StoryError: a value that the story schema does not allow.
    """
    given = {"size": size, "seed": seed, "fps": fps, "chunks": chunks}
    defaults = {name: value for name, value in given.items() if value is not None}
    of_shots = {name: None for name in ("seed", "chunks") if name in defaults}
    return dataclasses.replace(
        story,
        defaults=dataclasses.replace(story.defaults, **defaults),
        shots=tuple(dataclasses.replace(shot, **of_shots) for shot in story.shots),
    )


def with_model_defaults(file: StoryFile, model: Defaults) -> StoryFile:
    """The story with a model's size, rate and length where its file does not say; seeds stay."""
    unsaid = {
        name: getattr(model, name)
        for name in ("size", "fps", "chunks")
        if ("defaults", name) not in file.places.lines
    }
    defaults = dataclasses.replace(file.story.defaults, **unsaid)
    return dataclasses.replace(file, story=dataclasses.replace(file.story, defaults=defaults))
