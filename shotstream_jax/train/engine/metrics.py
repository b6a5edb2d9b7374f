"""Metrics of a run: JSON lines always, TensorBoard events if tensorboardX is installed.

A record holds the means over the steps since the record before it. Records have increasing steps
even in a run that was killed and resumed: records of steps that will be taken again are removed.

    pip install "shotstream-jax[tensorboard]"
    tensorboard --logdir runs/tiny/vae/tensorboard
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


class MeanAccumulator:
    """Means of metrics since the last record; a metric that no step measured has none."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self._sums: dict[str, list[float]] = {k: list(v) for k, v in (state or {}).items()}

    def add(self, metrics: Record) -> None:
        """Add the metrics of a step; values that are not finite, of skipped steps, are left out."""
        for name, value in metrics.items():
            if math.isfinite(value):
                total, count = self._sums.get(name, (0.0, 0.0))
                self._sums[name] = [total + value, count + 1]

    def means(self) -> dict[str, float]:
        """The mean of each metric over the steps that measured it."""
        return {name: total / count for name, (total, count) in self._sums.items()}

    @property
    def state(self) -> dict[str, list[float]]:
        """Sums and counts, to continue from after a restart."""
        return {name: list(pair) for name, pair in self._sums.items()}


class MetricsWriter:
    """Appends records of one kind to `NAME.jsonl`, and to TensorBoard."""

    def __init__(
        self,
        folder: pathlib.Path,
        name: str,
        step: int,
        tensorboard: "TensorBoardWriter | None" = None,
    ):
        """Continue after `step`: records of later steps, and an incomplete one, are removed."""
        self._path, self._name, self._tensorboard = folder / f"{name}.jsonl", name, tensorboard
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            with atomic_file(self._path) as partial:
                partial.write_text("".join(line for line in lines if _until(line, step)), "utf-8")

    def write(self, step: int, record: Record) -> None:
        """Append a record about the steps up to `step`."""
        line = json.dumps({"step": step, **{k: _plain(v) for k, v in record.items()}})
        # Opened for each record: every line is on its way to the disk when this returns, and a run
        # that is killed loses none. A line cut in half by a power cut is removed at the restart.
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self._tensorboard is not None:
            self._tensorboard.write(step, {f"{self._name}/{k}": v for k, v in record.items()})


class TensorBoardWriter:
    """TensorBoard event files, if tensorboardX is installed; failing to write them ends no run."""

    def __init__(self, folder: pathlib.Path, step: int) -> None:
        """Continue after `step`: TensorBoard drops later events."""
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
            # Curves for people to watch are not worth the run; metrics.jsonl has the same numbers.
            _LOG.warning("TensorBoard's files cannot be written (%s); going on without.", error)
            self._writer = None

    def close(self) -> None:
        """Write buffered events."""
        if self._writer is not None:
            self._writer.close()


def read_metrics(folder: pathlib.Path, name: str) -> list[dict[str, Any]]:
    """All records of one kind, in order; none if nothing was written."""
    path = folder / f"{name}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _plain(value: float) -> float | None:
    """The value as JSON, which has no infinity and no NaN."""
    return value if math.isfinite(value) else None


def _until(line: str, step: int) -> bool:
    try:
        return line.endswith("\n") and json.loads(line)["step"] <= step
    except ValueError:
        return False
