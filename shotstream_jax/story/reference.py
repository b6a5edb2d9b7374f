"""Stories in the files of the public implementation, as documents of our own format.

A CSV holds one story a row. `json_path` names a JSON file of captions; `frame_number` lists one
`[start, end)` pair a shot, of which only the number counts; `shot_num_from_caption` is not read.
Rows count from 1. In the JSON, `global_caption` is followed by `shot1`, `shot2`, ...; captions
beyond the number of shots are left out.
Source: KlingAIResearch/ShotStream, utils/dataset.py.
"""

import ast
import csv
import dataclasses
import io
import pathlib
from typing import Any

from shotstream_jax.story.document import Document, fail, read_document, read_utf8
from shotstream_jax.story.problems import FieldPath, Places, quote

_COLUMNS = ("json_path", "frame_number")


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row of the table, and where it starts."""

    fields: dict[str, str]
    place: str


def read_reference_csv(path: pathlib.Path, row: int | None) -> Document:
    """The story in one row of a CSV, which may be left open where there is only one.

    Raises:
      StoryError: a table, row or JSON file that does not hold a story.
    """
    rows = _read_rows(path)
    if not rows:
        fail("no stories under the header; add a row", str(path))
    if row is None and len(rows) != 1:
        fail(
            f"{len(rows)} stories; choose one, {path.name}#1 to {path.name}#{len(rows)}", str(path)
        )
    index = 1 if row is None else row
    if not 1 <= index <= len(rows):
        fail(f"no row {index}; its rows are 1 to {len(rows)}", str(path))
    chosen = rows[index - 1]
    shots = _count_shots(chosen)
    named = pathlib.Path(chosen.fields["json_path"])
    # Tables of the public repository have paths from the folder in which its program is started.
    tried = (path.parent / named, named)
    captions = next((candidate for candidate in tried if candidate.is_file()), None)
    if captions is None:
        fail(
            f"{quote(str(named))} is neither by the table nor in the working folder; correct it",
            chosen.place,
            ("json_path",),
        )
    return reference_story(read_document(captions), captions.stem, shots)


def is_reference_json(document: Any) -> bool:
    """Whether a document is a caption file of the public implementation."""
    return isinstance(document, dict) and "global_caption" in document and "version" not in document


def reference_story(captions: Document, title: str, shots: int | None = None) -> Document:
    """A caption file as a story of `shots` shots, by default all that it has captions for.

    Raises:
      StoryError: fewer captions than shots.
    """
    if not is_reference_json(captions.value):
        fail("missing; a caption file starts with it", captions.places.file, ("global_caption",))
    if shots is None:
        shots = next(
            n for n in range(len(captions.value) + 1) if f"shot{n + 1}" not in captions.value
        )
    lines: dict[FieldPath, str] = {("global",): captions.places.of(("global_caption",))}
    texts = []
    for index in range(shots):
        name = f"shot{index + 1}"
        if name not in captions.value:
            fail(f"missing; the table lists {shots} shots", captions.places.file, (name,))
        texts.append(captions.value[name])
        lines["shots", index] = captions.places.of((name,))
    story = {
        # Its shots have no ids: their places are what names them, as in format 1.
        "version": 1,
        "title": title,
        "global": captions.value["global_caption"],
        "shots": [{"caption": text} for text in texts],
    }
    return Document(story, Places(captions.places.file, lines))


def _read_rows(path: pathlib.Path) -> list[_Row]:
    reader = csv.reader(io.StringIO(read_utf8(path), newline=""))
    try:
        header = next(reader, [])
        for column in _COLUMNS:
            if column not in header:
                fail(f"no such column among {quote(', '.join(header))}", f"{path}:1", (column,))
        rows = []
        # A quoted cell may hold line ends: a row starts on the line after the last one's end.
        start = reader.line_num + 1
        for cells in reader:
            place = f"{path}:{start}"
            start = reader.line_num + 1
            if cells and len(cells) != len(header):
                fail(
                    f"{len(cells)} cells under {len(header)} columns; quote what holds commas",
                    place,
                )
            if cells:
                rows.append(_Row(dict(zip(header, cells, strict=True)), place))
    except csv.Error as error:
        fail(f"not CSV: {error}", f"{path}:{reader.line_num}")
    return rows


def _count_shots(row: _Row) -> int:
    written = row.fields["frame_number"]
    try:
        # The public reader evaluates this cell as Python; literals are all that it needs.
        pairs = ast.literal_eval(written.strip())
        ranges = [range(start, end) for start, end in pairs]
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        ranges = []
    if not ranges or not all(ranges):
        fail(
            f"{quote(written)} is not a list of shots; write [[start, end], ...] with start < end",
            row.place,
            ("frame_number",),
        )
    return len(ranges)
