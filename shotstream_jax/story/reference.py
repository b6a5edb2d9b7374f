"""Stories in the files of the public implementation, as documents of our own format.

A CSV holds one story a row. `json_path` names a JSON file of captions; `frame_number` lists one
`[start, end)` pair a shot, of which only the number counts; `shot_num_from_caption` is not read.
Rows count from 1. In the JSON, `global_caption` is followed by `shot1`, `shot2`, ...; captions
beyond the number of shots are left out, and noted.
Source: KlingAIResearch/ShotStream, utils/dataset.py.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from shotstream_jax.story.document import Document, fail, read_document
from shotstream_jax.story.problems import FieldPath, Places, Problem, quote
from shotstream_jax.story.tables import CsvRow, CsvTable

_COLUMNS = ("json_path", "frame_number")
_GLOBAL = "global_caption"

# A caption's name; seven digits are more shots than a story may have.
_SHOT = re.compile(r"shot([1-9][0-9]{0,6})")


def reference_table(table: CsvTable, row: int | None) -> Document:
    """The story in one row of a table, which may be left open where there is only one.

    Raises:
      StoryError: a table, row or JSON file that does not hold a story.
    """
    for column in _COLUMNS:
        if column not in table.columns:
            shown = quote(", ".join(table.columns))
            fail(f"no such column among {shown}", f"{table.file}:1", (column,))
    rows = table.rows
    if not rows:
        fail("no stories under the header; add a row", table.file)
    name = pathlib.Path(table.file).name
    if row is None and len(rows) != 1:
        fail(f"{len(rows)} stories; choose one, {name}#1 to {name}#{len(rows)}", table.file)
    index = 1 if row is None else row
    if not 1 <= index <= len(rows):
        fail(f"no row {index}; its rows are 1 to {len(rows)}", table.file)
    chosen = rows[index - 1]
    shots = _count_shots(chosen)
    captions = _caption_file(table, chosen)
    return reference_story(read_document(captions), captions.stem, shots)


def is_reference_json(document: Any) -> bool:
    """Whether a document is a caption file of the public implementation."""
    return isinstance(document, dict) and _GLOBAL in document and "version" not in document


def reference_story(captions: Document, title: str, shots: int | None = None) -> Document:
    """A caption file as a story of `shots` shots, by default all that it has captions for.

    Raises:
      StoryError: a shot without a caption, or a name that is nearly that of one.
    """
    file, places = captions.places.file, captions.places
    if not is_reference_json(captions.value):
        fail("missing; a caption file starts with it", file, (_GLOBAL,))
    numbers = _numbers(captions.value, places)
    count = max(numbers, default=0) if shots is None else shots
    missing = next((n for n in range(1, count + 1) if n not in numbers), None)
    if missing is not None:
        seen = f"the table lists {shots} shots" if shots else f"shot{count} is there"
        fail(f"missing; {seen}: add it, or number the shots anew", file, (f"shot{missing}",))
    names = [f"shot{n}" for n in range(1, count + 1)]
    lines: dict[FieldPath, str] = {("global",): places.of((_GLOBAL,))}
    lines |= {("shots", k): places.of((name,)) for k, name in enumerate(names)}
    story = {
        # Its shots have no ids: their places are what names them, as in format 1.
        "version": 1,
        "title": title,
        "global": captions.value[_GLOBAL],
        "shots": [{"caption": captions.value[name]} for name in names],
    }
    read = {_GLOBAL, *names}
    notes = [
        Problem((name,), "is not filmed: no shot of the story reads it", places.of((name,)))
        for name in captions.value
        if name not in read
    ]
    return Document(story, Places(file, lines), tuple(notes))


def _numbers(captions: Mapping[str, Any], places: Places) -> set[int]:
    """Numbers of the shots that have captions."""
    numbers = set()
    for name in captions:
        found = _SHOT.fullmatch(name)
        if found:
            numbers.add(int(found[1]))
        elif name.lower().startswith("shot"):
            # shot01, Shot2, shot_3: a caption that would be left out without a word.
            message = "is no name of a caption; write shot1, shot2, ..."
            fail(message, places.of((name,)), (name,))
    return numbers


def _caption_file(table: CsvTable, row: CsvRow) -> pathlib.Path:
    named = pathlib.Path(row.fields["json_path"].strip())
    # Tables of the public repository have paths from the folder in which its program is started.
    tried = (pathlib.Path(table.file).parent / named, named)
    try:
        found = next((candidate for candidate in tried if candidate.is_file()), None)
    except OSError:  # a name that no file system takes
        found = None
    if found is None:
        fail(
            f"{quote(str(named))} is neither by the table nor in the working folder; correct it",
            row.place,
            ("json_path",),
        )
    return found


def _count_shots(row: CsvRow) -> int:
    written = row.fields["frame_number"]
    try:
        # The public reader evaluates this cell as Python, which may write tuples. Evaluating even
        # literals can end the interpreter, so that brackets are made JSON's instead.
        pairs = json.loads(written.translate(str.maketrans("()", "[]")))
        ranges = [range(start, end) for start, end in pairs]
    except (ValueError, TypeError, RecursionError):
        ranges = []
    if not ranges or not all(ranges):
        fail(
            f"{quote(written)} is not a list of shots; write [[start, end], ...] with start < end",
            row.place,
            ("frame_number",),
        )
    return len(ranges)
