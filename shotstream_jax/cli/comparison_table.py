"""`shotstream eval --table`: models trained, evaluated on the same stories, and compared.

A table file defines `config`, a `Table`. Finished experiments are not trained again and evaluations
by the same command not repeated, so that a stopped table goes on where it was.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shotstream_jax.cli.exit_codes import ExitCode
from shotstream_jax.evaluation.eval_options import EvalOptions
from shotstream_jax.evaluation.table import Table, comparison_markdown
from shotstream_jax.files import atomic_file
from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.engine.run_folder import EXPORT

COMPARISON_FILE = "table.md"
_CONFIGS = pathlib.Path("configs")


def find_table(name: str) -> pathlib.Path:
    """The file of a table: a path, or the name of one in configs/."""
    path = pathlib.Path(name)
    return path if path.suffix else _CONFIGS / f"{name}.py"


def make_table(
    path: pathlib.Path,
    train: Callable[[pathlib.Path], tuple[int, pathlib.Path]],
    evaluate: Callable[[EvalOptions], Mapping[str, Any]],
) -> tuple[int, pathlib.Path | None]:
    """Train and evaluate what is missing, and write the table.

    Args:
      path: file that defines it.
      train: makes sure that an experiment is done; returns its exit status, and its output.
      evaluate: evaluates a model.

    Returns:
      Exit status, not 0 if a training did not finish; and the table's file if all did.

    Raises:
      ValueError: files, settings or models that will not do.
      OSError: files that cannot be read or written.
    """
    # One after the other: each training wants the whole machine.
    table = load_config(path, Table)
    for file in table.prerequisites:
        status, _ = train(path.parent / file)
        if status:
            return status, None
    found = []
    for row in table.rows:
        status, trained = train(path.parent / row.experiment)
        if status:
            return status, None
        folder = table.output / _slug(row.name)
        found.append(
            evaluate(dataclasses.replace(row.options, checkpoint=trained / EXPORT, output=folder))
        )
    # Once all rows are there: half a table would be compared with a whole one.
    made = table.output / COMPARISON_FILE
    with atomic_file(made) as partial:
        partial.write_text(comparison_markdown(table, found), encoding="utf-8")
    return ExitCode.DONE, made


def stored(folder: pathlib.Path, command: Sequence[str]) -> dict[str, Any] | None:
    """What an evaluation left in a folder, if the same command made it."""
    path = folder / "metrics.json"
    if not path.is_file():
        return None
    # Other options or another seed are another command: their numbers must not be mixed into a
    # table.
    document = json.loads(path.read_text(encoding="utf-8"))
    return document if document["command"] == list(command) else None


def _slug(name: str) -> str:
    # Names are sentences for a table; a folder's name must do on every file system and in a link.
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
