"""The contact sheet of an evaluation: its first stories, one row a shot."""

import pathlib
from collections.abc import Sequence

from shotstream_jax.contact_sheet import ContactRow, contact_sheet, save_png
from shotstream_jax.evaluation.films import EvalStory, ShotVideos
from shotstream_jax.storyworld.captions import prompts

SHOWN = 3
"""Stories on a sheet: some ten rows, which a screen shows at once."""


def save_story_sheet(
    path: pathlib.Path,
    stories: Sequence[EvalStory],
    films: Sequence[ShotVideos],
    *,
    title: str,
    badge: str = "",
) -> None:
    """Draw the first films, as many as there are up to `SHOWN`, and write them as PNG.

    Raises:
      OSError: no room.
    """
    rows = [
        ContactRow(
            label=f"story {number}, shot {shot}", caption=caption, seed=story.seed, frames=frames
        )
        # Not strict: the watch keeps the first films only, the stories are all.
        for number, (story, film) in enumerate(zip(stories, films[:SHOWN], strict=False), 1)
        for shot, (caption, frames) in enumerate(zip(prompts(story.spec), film, strict=True), 1)
    ]
    save_png(contact_sheet(rows, title=title, badge=badge), path)
