"""Models compared by the same stories: what a table file defines, and the table as text."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from shotstream_jax.evaluation.eval_options import EvalOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A model in a table.

    Attributes:
      name: what sets it apart.
      experiment: file of the experiment that trains it, beside the table's.
      options: how it is evaluated; checkpoint and output are filled in.
    """

    name: str
    experiment: pathlib.Path
    options: EvalOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Models to compare.

    Attributes:
      output: folder for what was found of each, and for the table.
      columns: metrics by name, and what they are called.
      prerequisites: experiments to train before the rows', in order, beside the table's file.
      rows: the models.
    """

    output: pathlib.Path
    columns: Mapping[str, str]
    rows: tuple[Row, ...]
    prerequisites: tuple[pathlib.Path, ...] = ()


def comparison_markdown(table: Table, found: Sequence[Mapping[str, Any]]) -> str:
    """The table as text: every number with its 95 % interval."""
    heading = ("", *table.columns.values())
    lines = [heading, ("---", *["---:"] * len(table.columns))]
    for row, document in zip(table.rows, found, strict=True):
        cells = (_cell(document, metric) for metric in table.columns)
        lines.append((row.name, *cells))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(document: Mapping[str, Any], metric: str) -> str:
    # A row without context, or of no transformer, lacks the metrics of the passes that it does not
    # have.
    if metric not in document["metrics"]:
        return ""
    low, high = document["intervals"][metric]
    return f"{document['metrics'][metric]:.3f} ({low:.3f} to {high:.3f})"
