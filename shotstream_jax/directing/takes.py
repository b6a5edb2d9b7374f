"""Takes: which take of each shot a story asks for, and the next one."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from shotstream_jax.directing.folder_contents import STORY
from shotstream_jax.story import Story, load_story


def with_takes(story: Story, folder: pathlib.Path) -> tuple[Story, tuple[int, ...]]:
    """The story with those takes and seeds that shots of a folder were filmed again with.

    A take that the story itself names stands.

    Returns:
      The story, and the places of the shots that were changed.

    Raises:
      ValueError: the folder's own story cannot be read.
    """
    path = folder / STORY
    if not path.is_file():
        return story, ()
    filmed = {shot.id: shot for shot in load_story(path).resolved().shots}
    shots, changed = list(story.shots), []
    for place, shot in enumerate(shots):
        there = filmed.get(story.shot_id(place))
        # Takes were counted up in the folder's story by `--only` and `--from`; the author's file
        # knows nothing of them, and without this --resume would see other plans than those filmed.
        if shot.take is None and there is not None and there.take:
            shots[place] = dataclasses.replace(shot, take=there.take, seed=there.seed)
            changed.append(place)
    return dataclasses.replace(story, shots=tuple(shots)), tuple(changed)


def retaken(story: Story, places: Sequence[int], seeds: Mapping[int, int | None]) -> Story:
    """The story with the next take of some shots; `seeds` are other seeds for some of them."""
    shots = list(story.shots)
    for place in places:
        shot, seed = shots[place], seeds.get(place)
        shots[place] = dataclasses.replace(
            shot, take=(shot.take or 0) + 1, seed=shot.seed if seed is None else seed
        )
    return dataclasses.replace(story, shots=tuple(shots))
