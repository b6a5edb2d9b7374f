"""The first stories of an evaluation as rows of a contact sheet."""

from collections.abc import Sequence

from shotstream_jax.directing.contact import ContactRow
from shotstream_jax.evaluation.films import Film, Script
from shotstream_jax.storyworld.captions import prompts

SHOWN = 3
"""Stories on a sheet."""


def story_rows(films: Sequence[tuple[Script, Film]]) -> list[ContactRow]:
    """One row a shot, story after story."""
    return [
        ContactRow(
            label=f"story {story}, shot {shot}", caption=caption, seed=script.seed, frames=frames
        )
        for story, (script, film) in enumerate(films, 1)
        for shot, (caption, frames) in enumerate(zip(prompts(script.spec), film, strict=True), 1)
    ]
