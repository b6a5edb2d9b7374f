"""Stories in tables: the rows of a CSV, and a plain list of shots with a `caption` column.

A table of the public implementation is recognised by its columns (see reference.py). Cells are
separated by commas, or by the semicolons or tabs that spreadsheets write instead. Rows without any
text are no rows: spreadsheets leave them behind.
"""

import csv
import dataclasses
import io
import re
from typing import Any

from shotstream_jax.story.document import Document, fail
from shotstream_jax.story.problems import FieldPath, Places, quote
from shotstream_jax.story.schema import shot_fields, unknown_field
from shotstream_jax.story.story import FORMAT_VERSION

_WHOLE_NUMBERS = ("seed", "chunks", "take")

# Spreadsheets write 7.0 for 7; longer numbers than these are text, and refused as such.
_WHOLE = re.compile(r"\s*([+-]?\d{1,20})(?:\.0*)?\s*")


@dataclasses.dataclass(frozen=True)
class CsvRow:
    """A row of a table, and where it starts."""

    fields: dict[str, str]
    place: str


@dataclasses.dataclass(frozen=True)
class CsvTable:
    """A CSV.

    Attributes:
      file: its name, for messages.
      columns: their names in lower case.
      rows: those that hold any text.
    """

    file: str
    columns: tuple[str, ...]
    rows: tuple[CsvRow, ...]


def read_table(text: str, file: str) -> CsvTable:
    """The rows of a CSV.

    Raises:
      StoryError: text that is not CSV, or rows of other lengths than the header's.
    """
    first = text[: text.find("\n")] if "\n" in text else text
    separator = max(",;\t", key=first.count)
    # Strict: a quote that is never closed would take all rows after it into one caption.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        columns = _columns(next(reader, []), file)
        rows = []
        # A quoted cell may hold line ends: a row starts on the line after the last one's end.
        start = reader.line_num + 1
        for cells in reader:
            place = f"{file}:{start}"
            start = reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                fail(
                    f"{len(cells)} cells under {len(columns)} columns; quote what holds commas",
                    place,
                )
            rows.append(CsvRow(dict(zip(columns, cells, strict=True)), place))
    except csv.Error as error:
        fail(f"not CSV: {error}", f"{file}:{reader.line_num}")
    return CsvTable(file, columns, tuple(rows))


def _columns(header: list[str], file: str) -> tuple[str, ...]:
    columns = tuple(name.strip().lower() for name in header)
    for place, name in enumerate(columns):
        if name in columns[:place]:
            fail(f"two columns are called {quote(name)}; rename one", f"{file}:1")
    return columns


def is_plain_table(table: CsvTable) -> bool:
    """Whether every row is a shot."""
    return "caption" in table.columns


def plain_story(table: CsvTable, title: str) -> Document:
    """A table of shots, a row each, as a story; an empty cell says nothing.

    Raises:
      StoryError: a column that is no field of a shot.
    """
    for name in table.columns:
        if name not in shot_fields():
            fail(unknown_field(name, shot_fields()), f"{table.file}:1", (name,))
    lines: dict[FieldPath, str] = {("shots", k): row.place for k, row in enumerate(table.rows)}
    story = {
        "version": FORMAT_VERSION,
        "title": title,
        "shots": [_shot(row) for row in table.rows],
    }
    return Document(story, Places(table.file, lines))


def _shot(row: CsvRow) -> dict[str, Any]:
    written = {name: text for name, text in row.fields.items() if text.strip()}
    return {name: _value(name, text) for name, text in written.items()}


def _value(name: str, text: str) -> Any:
    if name not in _WHOLE_NUMBERS:
        return text
    whole = _WHOLE.fullmatch(text)
    return int(whole[1]) if whole else text
