"""Story files: YAML, JSON and tables of shots; CSV and JSON of the public implementation.

Reading never guesses: what is wrong is refused with its line and field. Writing fills every default
in, so that the file gives the same film on any machine and with any later release.
"""

import dataclasses
import os
import pathlib
import re
from typing import Any

import yaml

from shotstream_jax.story.document import STDIN, Document, fail, parse_document, read_utf8
from shotstream_jax.story.problems import Places, Problem, StoryError
from shotstream_jax.story.reference import is_reference_json, reference_story, reference_table
from shotstream_jax.story.story import Story
from shotstream_jax.story.tables import is_plain_table, plain_story, read_table

STORY_SUFFIXES = (".yaml", ".yml", ".json", ".csv")

# Captions of the public stories are paragraphs: at 100 columns they wrap into a readable block.
_LINE_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class StoryFile:
    """A story, and where each of its fields was read.

    Attributes:
      story: as written.
      places: `file:line` of every field.
      notes: what was there and is not filmed.
    """

    story: Story
    places: Places
    notes: tuple[Problem, ...] = ()


def load_story(path: str | os.PathLike[str]) -> Story:
    """The story in a file; `table.csv#2` is row 2 of a table, a folder its only story, `-` stdin.

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
        story = Story.from_document(document.value)
        return StoryFile(story, document.places, document.notes)
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
    if str(file) == STDIN:
        return _read_stdin()
    if _is_folder(file):
        file = _only_story(file)
    suffix = file.suffix.lower()
    if suffix not in STORY_SUFFIXES:
        fail(f"{suffix!r} is no story file; use {', '.join(STORY_SUFFIXES)}", str(file))
    return _parse(read_utf8(file), file, suffix, row)


def _read_stdin() -> Document:
    """The story in standard input, whose format no name tells."""
    text = read_utf8(pathlib.Path(STDIN))
    cells = {cell.strip(' "').lower() for cell in re.split("[,;\t]", text.partition("\n")[0])}
    is_table = not cells.isdisjoint({"caption", "json_path"})
    suffix = ".csv" if is_table else ".json" if _is_json(text) else ".yaml"
    return _parse(text, pathlib.Path("stdin"), suffix, None)


def _is_json(text: str) -> bool:
    # YAML's groups may stand in braces too, with names that JSON would quote.
    return re.match(r'\s*\{\s*["}]', text) is not None


def _parse(text: str, file: pathlib.Path, suffix: str, row: int | None) -> Document:
    if suffix != ".csv":
        document = parse_document(text, str(file), is_json=suffix == ".json")
        is_reference = is_reference_json(document.value)
        return reference_story(document, file.stem) if is_reference else document
    table = read_table(text, str(file))
    if not is_plain_table(table):
        return reference_table(table, row)
    if row is not None:
        fail(f"its rows are the shots of one story; give {file.name} without #{row}", str(file))
    return plain_story(table, file.stem)


def _split_row(path: str) -> tuple[pathlib.Path, int | None]:
    # A file may be called table.csv#2 itself; nine digits are more rows than memory holds.
    numbered = re.fullmatch(r"(.+\.csv)#(\d{1,9})", path, re.IGNORECASE | re.DOTALL)
    if numbered is None or os.path.lexists(path):
        return pathlib.Path(path), None
    return pathlib.Path(numbered[1]), int(numbered[2])


def _is_folder(file: pathlib.Path) -> bool:
    try:
        return file.is_dir()
    except OSError:  # a name that no file system takes; opening it says so
        return False


def _only_story(folder: pathlib.Path) -> pathlib.Path:
    try:
        files = sorted(f for f in folder.iterdir() if f.suffix.lower() in STORY_SUFFIXES)
    except OSError as error:
        fail(f"cannot be read: {(error.strerror or str(error)).lower()}", str(folder))
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
