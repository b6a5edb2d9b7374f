"""Film a story from Python into an mp4 and a contact sheet.

    python examples/film_a_story.py [FOLDER]

The folder, `film_a_story` unless named, must not hold another film.
"""

import pathlib
import sys

from shotstream_jax import Defaults, Shot, Story, film_story, open_model

STORY = Story(
    title="The striped circle",
    global_caption="our hero is a striped red circle.",
    # The miniature was trained on this size, rate and length; see docs/guides/film.md.
    defaults=Defaults(seed=3, size=(48, 80), fps=8, chunks=2),
    shots=(
        Shot(caption="wide shot, it walks right in the meadow."),
        Shot(caption="the desert, close shot, the hero waits."),
        Shot(caption="medium shot, it jumps in the city."),
    ),
)


def main(folder: pathlib.Path) -> None:
    """Film the story; every finished shot is in the folder before the next one begins."""
    model = open_model("tiny")
    film_story(model, STORY, folder)
    print(f"{folder / 'film.mp4'} and {folder / 'contact.png'} are there.")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "film_a_story"))
