"""The training loop, one for all stages.

    train(training)   open folder -> restore or begin -> step, step, ... -> finish

The next step is dispatched before the last one's metrics are read, so the device never waits for
the host. What a person must know ends up in the run's folder (run_folder.py); a caller may watch.
One process drives all devices.
"""

import contextlib
import dataclasses
import functools
import pathlib
import shutil
import signal as signals
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from shotstream_jax.train.engine.checkpoint import Store
from shotstream_jax.train.engine.dump import write_dump
from shotstream_jax.train.engine.metrics import Board, Interval, Journal, Record
from shotstream_jax.train.engine.objective import Batch
from shotstream_jax.train.engine.programs import (
    build_programs,
    first_state,
    load_networks,
    mesh_of,
    place_batch,
)
from shotstream_jax.train.engine.run_folder import (
    EXPORT,
    VALIDATION,
    Existing,
    describe,
    opened,
    refuse_other,
)
from shotstream_jax.train.engine.stage import Look, Scores, Stage, Training

_COUNTS = ("skipped", "skipped_in_row")
_STOPPING = (signals.SIGTERM, signals.SIGINT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """What is known after a step.

    Attributes:
      step: its number, from 1.
      steps: steps in all.
      metrics: of the latest step that was read, or means where a record was just written.
      rate: steps a second, pauses left out; `None` until the first record.
      recorded: whether a record was just written.
      scores: of the validation that was just made, if any.
    """

    step: int
    steps: int
    metrics: Record
    rate: float | None = None
    recorded: bool = False
    scores: Scores | None = None

    @property
    def seconds_left(self) -> float | None:
        """Time for the steps left, once there is a rate."""
        return (self.steps - self.step) / self.rate if self.rate else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
      ended: all steps taken; asked to stop, everything saved; or given up on steps without a
        finite gradient.
      step: steps taken.
      scores: of the finished networks.
      signal: what asked to stop.
      dump: where the last step of a run that was given up is written down.
    """

    ended: Literal["finished", "stopped", "diverged"]
    step: int
    scores: Scores = dataclasses.field(default_factory=dict)
    signal: signals.Signals | None = None
    dump: pathlib.Path | None = None


Watch = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Do not watch."""
    del progress


def train(
    training: Training,
    *,
    existing: Existing = "refuse",
    watch: Watch = ignore,
    look: Look | None = None,
) -> Outcome:
    """Run a stage to its end, or until SIGTERM, Ctrl-C or divergence.

    Args:
      training: the settings.
      existing: what to do about a run that is there already.
      watch: is told of every step.
      look: films with a model in training and scores it, when the stage has one.

    Raises:
      ValueError: settings, data, checkpoints or a folder that do not fit together; or trained
        networks that are not good enough for the next stage.
      OSError: files that cannot be read or written.
    """
    mesh = mesh_of(training.mesh)
    stage = training.stage(mesh)
    with opened(training, existing) as folder, stop_signals() as stop:
        run = _Run(training, stage, mesh, folder, watch, look)
        try:
            while run.step < training.steps and not stop and run.dump is None:
                run.advance()
            run.settle()
            if run.dump is not None:
                return Outcome(ended="diverged", step=run.step, dump=run.dump)
            run.save()
            if stop:
                return Outcome(ended="stopped", step=run.step, signal=stop[0])
            return Outcome(ended="finished", step=run.step, scores=run.finish())
        finally:
            run.close()


class _Run:
    """A run between two steps, on the host: state, place in the data, metrics yet to be read."""

    def __init__(
        self,
        training: Training,
        stage: Stage,
        mesh: Mesh,
        folder: pathlib.Path,
        watch: Watch,
        look: Look | None,
    ) -> None:
        self._training, self._stage, self._folder, self._watch = training, stage, folder, watch
        self._look = look
        self._candidate = stage.candidate() if look and stage.candidate else None
        self._programs = build_programs(stage, training, mesh)
        self._store = Store(folder, training.keep)
        self._batches = stage.batches()
        restored = self._store.restore(
            self._programs.shapes,
            self._programs.shardings,
            lambda facts: refuse_other(training, facts["run"]),
        )
        facts: dict[str, Any] = {"interval": {}}
        if restored is None:
            self._state = first_state(stage, training, self._programs)
        else:
            self._state, facts = restored
            self._batches.set_state(facts["data"])
        self._frozen = load_networks(stage.frozen, self._programs.mesh)
        self.step = int(self._state.step)
        self.dump: pathlib.Path | None = None
        self._interval = Interval(facts["interval"])
        self._board = Board(folder, self.step)
        journal = functools.partial(Journal, folder, step=self.step, board=self._board)
        self._metrics, self._validation = journal("metrics"), journal("validation")
        self._unread: tuple[int, Batch, Any] | None = None
        self._clock = _Clock()

    def advance(self) -> None:
        """Take a step, and do what is due after it."""
        network = self._stage.turn(self.step)
        objective = self._stage.objectives[network]
        batch = next(self._batches)
        placed = place_batch(batch, objective, self._programs.mesh)
        step = self._programs.steps[network]
        self._state, metrics = step(self._state, self._frozen, placed)
        self.step += 1
        # Of the step before: this one is only on its way.
        self.settle()
        self._unread = self.step, batch, metrics
        due = self._due()
        if due:
            self.settle()
        if self.dump is None and "validate" in due:
            with self._clock.pause():
                self._validate()
        if self.dump is None and "save" in due:
            with self._clock.pause():
                self.save()

    def settle(self) -> None:
        """Wait for the latest step, note its metrics and judge it."""
        if self._unread is None:
            return
        (step, batch, metrics), self._unread = self._unread, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        counts = {name: values.pop(name) for name in _COUNTS}
        self._interval.add(values)
        self._clock.count()
        if counts["skipped_in_row"] >= self._training.patience:
            self.dump = write_dump(self._folder, step, {**values, **counts}, batch, self._state)
        recorded = step % self._training.log_every == 0 or step == self._training.steps
        if recorded:
            values = {**self._interval.means(), "skipped": counts["skipped"]}
            self._interval = Interval()
            values["steps_per_second"] = self._clock.measure()
            self._metrics.write(step, values)
        self._tell(step, values, recorded=recorded)

    def save(self) -> None:
        """Begin to write a checkpoint."""
        facts = {
            "run": describe(self._training),
            "data": self._batches.get_state(),
            "interval": self._interval.state,
        }
        self._store.save(self._state, facts)

    def finish(self) -> Scores:
        """Make what the next stage starts from, in place of what an earlier finish made."""
        self._store.wait()
        shutil.rmtree(self._folder / EXPORT, ignore_errors=True)
        return self._stage.finish({**self._frozen, **self._state.best}, self._folder / EXPORT)

    def close(self) -> None:
        """Wait until everything is written."""
        self._store.close()
        self._board.close()

    def _due(self) -> set[str]:
        every = {"validate": self._training.validate_every, "save": self._training.save_every}
        return {what for what, steps in every.items() if self.step % steps == 0}

    def _validate(self) -> None:
        pictures = self._folder / VALIDATION
        pictures.mkdir(exist_ok=True)
        networks = {**self._frozen, **self._state.best}
        scores = self._stage.validate(networks, pictures, self.step)
        if self._look and self._candidate:
            scores = {**scores, **self._look(self._candidate, networks, pictures, self.step)}
        if scores:
            self._validation.write(self.step, scores)
            self._tell(self.step, {}, scores=scores)

    def _tell(
        self, step: int, metrics: Record, *, recorded: bool = False, scores: Scores | None = None
    ) -> None:
        self._watch(
            Progress(
                step=step,
                steps=self._training.steps,
                metrics=metrics,
                rate=self._clock.rate,
                recorded=recorded,
                scores=scores,
            )
        )


class _Clock:
    """Steps a second, without pauses and without the first step, which compiles."""

    def __init__(self) -> None:
        self._counted, self._since = -1, 0.0
        self.rate: float | None = None

    def count(self) -> None:
        """Count a step."""
        if self._counted < 0:
            self._since = time.monotonic()
        self._counted += 1

    def measure(self) -> float:
        """The rate of the steps since it was last measured; 0 if only the first was taken."""
        now = time.monotonic()
        if self._counted > 0:
            self.rate = self._counted / max(now - self._since, 1e-9)
        self._counted, self._since = 0, now
        return self.rate or 0.0

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Do not count the time of the block."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began


@contextlib.contextmanager
def stop_signals() -> Iterator[list[signals.Signals]]:
    """Signals that asked to stop, as they come; a second Ctrl-C is not waited for."""
    received: list[signals.Signals] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if number == signals.SIGINT and received:
            raise KeyboardInterrupt
        received.append(signals.Signals(number))

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signals.signal(number, note) for number in _STOPPING}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signals.signal(number, handler)
