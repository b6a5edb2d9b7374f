"""What a run says of itself in numbers: one JSON object a line, and TensorBoard where it is there.

A record sums up the steps since the one before it. Records have increasing steps even in a run that
was killed and resumed: what a resumed run is about to do again is first removed.
"""

import importlib
import importlib.util
import json
import logging
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from shotstream_jax.files import atomic_file

Record = Mapping[str, float]

_LOG = logging.getLogger(__name__)


class Interval:
    """Means of what was measured since the last record; a network that had no turn has none."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self._sums: dict[str, list[float]] = {k: list(v) for k, v in (state or {}).items()}

    def add(self, metrics: Record) -> None:
        """Take a step in; values that are not finite are left out, the step was skipped."""
        for name, value in metrics.items():
            if math.isfinite(value):
                total, count = self._sums.get(name, (0.0, 0.0))
                self._sums[name] = [total + value, count + 1]

    def means(self) -> dict[str, float]:
        """The mean of each metric over the steps that measured it."""
        return {name: total / count for name, (total, count) in self._sums.items()}

    @property
    def state(self) -> dict[str, list[float]]:
        """Sums and counts, to go on from."""
        return {name: list(pair) for name, pair in self._sums.items()}


class Journal:
    """The records of a run under one name, in `NAME.jsonl`."""

    def __init__(self, folder: pathlib.Path, name: str, step: int, board: "Board | None" = None):
        """Go on after `step`: records of later steps, and half a record, are removed."""
        self._path, self._name, self._board = folder / f"{name}.jsonl", name, board
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            with atomic_file(self._path) as partial:
                partial.write_text("".join(line for line in lines if _until(line, step)), "utf-8")

    def write(self, step: int, record: Record) -> None:
        """Add a record about the steps up to `step`."""
        line = json.dumps({"step": step, **{k: _plain(v) for k, v in record.items()}})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self._board is not None:
            self._board.write(step, {f"{self._name}/{k}": v for k, v in record.items()})


class Board:
    """TensorBoard's event files, if tensorboardX is installed; a run never ends because of them."""

    def __init__(self, folder: pathlib.Path, step: int) -> None:
        """Go on after `step`: later events are marked as void."""
        self._writer: Any = None
        if importlib.util.find_spec("tensorboardX"):
            writer = importlib.import_module("tensorboardX").SummaryWriter
            self._writer = writer(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, record: Record) -> None:
        """Add one point to each curve."""
        if self._writer is None:
            return
        try:
            for name, value in record.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()
        except OSError as error:
            _LOG.warning("TensorBoard's files cannot be written (%s); going on without.", error)
            self._writer = None

    def close(self) -> None:
        """Write out what is left."""
        if self._writer is not None:
            self._writer.close()


def read_journal(folder: pathlib.Path, name: str) -> list[dict[str, Any]]:
    """All records under one name, in order; none if nothing was written."""
    path = folder / f"{name}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _plain(value: float) -> float | None:
    """JSON knows no infinity and no NaN."""
    return value if math.isfinite(value) else None


def _until(line: str, step: int) -> bool:
    try:
        return line.endswith("\n") and json.loads(line)["step"] <= step
    except ValueError:
        return False
