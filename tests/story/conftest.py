"""Stories to test with, written down and made up."""

import pathlib
import textwrap
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import strategies as st

from shotstream_jax.story import Defaults, Shot, Story

GOOD = """
    version: 1
    title: The lighthouse
    global: "[Mara], grey braid, yellow coat."
    defaults: {seed: 7, chunks: 2, size: [64, 96], fps: 8}
    shots:
      - {id: stairs, caption: "Mara climbs the stairs."}
      - caption: She lights the lamp.
        seed: 11
        chunks: 3
        transition: continue
"""


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    """Write a text file into a folder of the test's own."""

    def write(text: str | bytes, name: str = "story.yaml") -> pathlib.Path:
        path = tmp_path / name
        content = textwrap.dedent(text).lstrip("\n").encode() if isinstance(text, str) else text
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def good() -> str:
    return GOOD


def _texts() -> st.SearchStrategy[str]:
    forbidden = "".join(map(chr, [*range(9), 11, 12, *range(14, 32), 127]))
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters=forbidden))


def stories() -> st.SearchStrategy[Story]:
    """Any story that can be filmed."""
    words = _texts().filter(lambda text: text.strip() != "")
    seeds = st.integers(0, 2**32 - 1)
    chunks = st.integers(1, 1000)
    pixels = st.integers(1, 256).map(lambda patches: 16 * patches)
    defaults = st.builds(
        Defaults,
        seed=seeds,
        size=st.tuples(pixels, pixels),
        fps=st.integers(1, 120),
        chunks=chunks,
    )

    @st.composite
    def story(draw: st.DrawFn) -> Story:
        count = draw(st.integers(1, 5))
        shots = tuple(
            Shot(
                caption=draw(words),
                seed=draw(st.none() | seeds),
                chunks=draw(st.none() | chunks),
                transition=draw(st.sampled_from(["cut", "continue"])) if index else "cut",
                id=draw(st.none() | st.just(f"shot-{index}")),
            )
            for index in range(count)
        )
        return Story(
            title=draw(words), global_caption=draw(_texts()), shots=shots, defaults=draw(defaults)
        )

    return story()


@pytest.fixture(scope="session")
def any_story() -> st.SearchStrategy[Story]:
    return stories()


hypothesis.settings.register_profile("stories", deadline=None)
hypothesis.settings.load_profile("stories")
