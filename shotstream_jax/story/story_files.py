"""Story files: YAML and JSON in our own format, CSV and JSON in the public implementation's.

Reading never guesses: what is wrong is refused with its line and field. Writing fills every default
in, so that the file gives the same film on any machine and with any later release.
"""

import dataclasses
import os
import pathlib
import re
from typing import Any

import yaml

from shotstream_jax.story.document import Document, fail, read_document
from shotstream_jax.story.problems import Places, StoryError
from shotstream_jax.story.reference import (
    is_reference_json,
    read_reference_csv,
    reference_story,
)
from shotstream_jax.story.story import Story

STORY_SUFFIXES = (".yaml", ".yml", ".json", ".csv")

# Captions of the public stories are paragraphs: at 100 columns they wrap into a readable block.
_LINE_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class StoryFile:
    """A story, and where each of its fields was read.

    Attributes:
      story: as written.
      places: `file:line` of every field.
    """

    story: Story
    places: Places


def load_story(path: str | os.PathLike[str]) -> Story:
    """The story in a file; `table.csv#2` is the second row of a table, a folder its only story.

    Raises:
      StoryError: everything that is wrong with the file, by line and field.
    """
    return read_story(path).story


def read_story(path: str | os.PathLike[str]) -> StoryFile:
    """Like `load_story`, and keep the places.

    Raises:
      StoryError: everything that is wrong with the file, by line and field.
    """
    document = _read(path)
    try:
        return StoryFile(Story.from_document(document.value), document.places)
    except StoryError as error:
        raise StoryError(document.places.locate(error.problems)) from None


def dump_story(story: Story) -> str:
    """The YAML of a story with every default filled in; loading it gives `story.resolved()`."""
    return yaml.dump(
        story.resolved().document(),
        Dumper=_StoryDumper,
        sort_keys=False,
        allow_unicode=True,
        width=_LINE_WIDTH,
    )


def _read(path: str | os.PathLike[str]) -> Document:
    file, row = _split_row(os.fspath(path))
    if file.is_dir():
        file = _only_story(file)
    suffix = file.suffix.lower()
    if suffix not in STORY_SUFFIXES:
        fail(f"{suffix!r} is no story file; use {', '.join(STORY_SUFFIXES)}", str(file))
    if suffix == ".csv":
        return read_reference_csv(file, row)
    document = read_document(file)
    if is_reference_json(document.value):
        return reference_story(document, file.stem)
    return document


def _split_row(path: str) -> tuple[pathlib.Path, int | None]:
    # A file may be called table.csv#2 itself; nine digits are more rows than memory holds.
    numbered = re.fullmatch(r"(.+\.csv)#(\d{1,9})", path, re.IGNORECASE)
    if numbered is None or pathlib.Path(path).exists():
        return pathlib.Path(path), None
    return pathlib.Path(numbered[1]), int(numbered[2])


def _only_story(folder: pathlib.Path) -> pathlib.Path:
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in STORY_SUFFIXES)
    # A film's folder holds story.yaml; one of the public stories a table beside its captions.
    named = [f for f in files if f.stem == "story"] or [f for f in files if f.suffix == ".csv"]
    candidates = named or files
    if len(candidates) != 1:
        fail(f"a folder with {len(candidates)} stories in it; name the file", str(folder))
    return candidates[0]


class _StoryDumper(yaml.SafeDumper):
    """Writes `[height, width]` on one line, and every text so that it reads back unchanged."""


def _represent_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    # `[480, 832]` on one line, lists of shots one a line.
    numbers = all(isinstance(item, int) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=numbers)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # YAML 1.1 takes these for line ends and, outside double quotes, folds them into spaces.
    folds = any(mark in text for mark in "\x85\u2028\u2029")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if folds else None)


_StoryDumper.add_representer(list, _represent_list)
_StoryDumper.add_representer(str, _represent_text)
