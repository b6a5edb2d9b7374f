"""The training loop of every stage.

    train(training)   open folder -> restore or initialise -> step, step, ... -> finish

A step is dispatched before the metrics of the step before are read, so the device never waits for
the host. Everything that is kept is in the run's folder (run_folder.py); `watch` is called with the
progress after each step. One process drives all devices.
"""

import contextlib
import dataclasses
import functools
import pathlib
import shutil
import signal as signals
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from shotstream_jax.progress import RateMeter, seconds_left
from shotstream_jax.train.engine.checkpoint import Store
from shotstream_jax.train.engine.compiled import (
    build_programs,
    first_state,
    load_networks,
    mesh_of,
    place_batch,
)
from shotstream_jax.train.engine.dump import write_dump
from shotstream_jax.train.engine.metrics import (
    MeanAccumulator,
    MetricsWriter,
    Record,
    TensorBoardWriter,
)
from shotstream_jax.train.engine.run_folder import (
    EXPORT,
    VALIDATION,
    Existing,
    describe,
    opened,
    refuse_other,
)
from shotstream_jax.train.engine.stage import Scores, Stage, Training
from shotstream_jax.train.losses import Batch

_COUNTS = ("skipped", "skipped_in_row")
_STOPPING = (signals.SIGTERM, signals.SIGINT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """Progress after a step.

    Attributes:
      step: its number, from 1.
      steps: steps in all.
      metrics: of this step, or their means where a record was just written.
      rate: steps per second without pauses; `None` until the first record.
      recorded: whether a record was just written.
      scores: of the validation that just ended, if any.
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
        return seconds_left(self.steps - self.step, self.rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
      ended: `finished`, all steps taken; `stopped` by a signal, with everything saved; or
        `diverged`, after `patience` steps in a row without a finite gradient.
      step: steps taken.
      scores: of the finished networks.
      signal: the signal that stopped it.
      dump: folder that describes the last step of a run that diverged.
    """

    ended: Literal["finished", "stopped", "diverged"]
    step: int
    scores: Scores = dataclasses.field(default_factory=dict)
    signal: signals.Signals | None = None
    dump: pathlib.Path | None = None


TrainWatch = Callable[[TrainProgress], None]


def ignore(progress: TrainProgress) -> None:
    """Ignore the progress."""
    del progress


def train(
    training: Training,
    *,
    existing: Existing = "refuse",
    watch: TrainWatch = ignore,
) -> Outcome:
    """Run a stage to its end, or until SIGTERM, Ctrl-C or divergence.

    Args:
      training: the settings.
      existing: what to do about a run that is there already.
      watch: called after every step.

    Raises:
      ValueError: settings, data, checkpoints or a folder that do not fit together; or trained
        networks that are not good enough for the next stage.
      OSError: files that cannot be read or written.
    """
    mesh = mesh_of(training.mesh)
    stage = training.stage(mesh)
    with opened(training, existing) as folder, stop_signals() as stop:
        run = _Run(training, stage, mesh, folder, watch)
        try:
            # Signals are only noted while a step is computed, and acted on between two steps.
            while run.step < training.steps and not stop and run.dump is None:
                run.advance()
            run.process_metrics()
            if run.dump is not None:
                return Outcome(ended="diverged", step=run.step, dump=run.dump)
            run.save()
            if stop:
                return Outcome(ended="stopped", step=run.step, signal=stop[0])
            return Outcome(ended="finished", step=run.step, scores=run.finish())
        finally:
            run.close()


class _Run:
    """The host's side of a run: training state, batches, metrics that are not read yet."""

    def __init__(
        self,
        training: Training,
        stage: Stage,
        mesh: Mesh,
        folder: pathlib.Path,
        watch: TrainWatch,
    ) -> None:
        self._training, self._stage, self._folder, self._watch = training, stage, folder, watch
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
        # After the state: a checkpoint that is refused or damaged must not wait for them.
        self._frozen = load_networks(stage.frozen, self._programs.mesh)
        self.step = int(self._state.step)
        self.dump: pathlib.Path | None = None
        # Saved with the checkpoint: the first record after a restart also covers the steps that
        # were taken before it.
        self._means = MeanAccumulator(facts["interval"])
        self._tensorboard = TensorBoardWriter(folder, self.step)
        writer = functools.partial(
            MetricsWriter, folder, step=self.step, tensorboard=self._tensorboard
        )
        self._metrics, self._validation = writer("metrics"), writer("validation")
        self._unread: tuple[int, Batch, Any] | None = None
        self._meter = RateMeter()
        self._rate: float | None = None
        # Last: what training cannot begin without is refused before what validation lacks.
        self._validate_networks = stage.validation()

    def advance(self) -> None:
        """Dispatch a step; then read metrics, validate and save where that is due."""
        network = self._stage.network_for_step(self.step)
        objective = self._stage.objectives[network]
        batch = next(self._batches)
        placed = place_batch(batch, objective, self._programs.mesh)
        step = self._programs.steps[network]
        self._state, metrics = step(self._state, self._frozen, placed)
        self.step += 1
        # Those of the step before, while the device computes this one.
        self.process_metrics()
        self._unread = self.step, batch, metrics
        due = self._due()
        if due:
            # This step's too: a run that diverged must neither be validated nor saved.
            self.process_metrics()
        if self.dump is None and "validate" in due:
            with self._meter.pause():
                self._validate()
        if self.dump is None and "save" in due:
            with self._meter.pause():
                self.save()

    def process_metrics(self) -> None:
        """Fetch the pending step's metrics, record them, and end the run if it diverged."""
        if self._unread is None:
            return
        (step, batch, metrics), self._unread = self._unread, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        counts = {name: values.pop(name) for name in _COUNTS}
        self._means.add(values)
        self._meter.count()
        # A single bad batch is survived. Many in a row mean that the parameters themselves do not
        # give finite numbers any more, and no later step will: skipped steps do not change them.
        if counts["skipped_in_row"] >= self._training.patience:
            self.dump = write_dump(self._folder, step, {**values, **counts}, batch, self._state)
        recorded = step % self._training.log_every == 0 or step == self._training.steps
        if recorded:
            values = {**self._means.means(), "skipped": counts["skipped"]}
            self._means = MeanAccumulator()
            self._rate = self._meter.rate or self._rate
            self._meter.restart()
            values["steps_per_second"] = self._rate or 0.0
            self._metrics.write(step, values)
        self._report(step, values, recorded=recorded)

    def save(self) -> None:
        """Begin to write a checkpoint, in the background."""
        facts = {
            "run": describe(self._training),
            "data": self._batches.get_state(),
            "interval": self._means.state,
        }
        self._store.save(self._state, facts)

    def finish(self) -> Scores:
        """Export the trained networks, in place of an earlier export."""
        # The last checkpoint first: if exporting fails, the run can be resumed to export again.
        self._store.wait()
        shutil.rmtree(self._folder / EXPORT, ignore_errors=True)
        return self._stage.finish(
            {**self._frozen, **self._state.export_params}, self._folder / EXPORT
        )

    def close(self) -> None:
        """Wait until everything is written, and release the files."""
        self._store.close()
        self._tensorboard.close()

    def _due(self) -> set[str]:
        every = {"validate": self._training.validate_every, "save": self._training.save_every}
        return {what for what, steps in every.items() if self.step % steps == 0}

    def _validate(self) -> None:
        pictures = self._folder / VALIDATION
        pictures.mkdir(exist_ok=True)
        networks = {**self._frozen, **self._state.export_params}
        scores = self._validate_networks(networks, pictures, self.step)
        if scores:
            self._validation.write(self.step, scores)
            self._report(self.step, {}, scores=scores)

    def _report(
        self, step: int, metrics: Record, *, recorded: bool = False, scores: Scores | None = None
    ) -> None:
        self._watch(
            TrainProgress(
                step=step,
                steps=self._training.steps,
                metrics=metrics,
                rate=self._rate,
                recorded=recorded,
                scores=scores,
            )
        )


@contextlib.contextmanager
def stop_signals() -> Iterator[list[signals.Signals]]:
    """Signals that asked to stop, as they come; a second Ctrl-C is not waited for."""
    received: list[signals.Signals] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        # A second Ctrl-C: the person does not want to wait for the checkpoint.
        if number == signals.SIGINT and received:
            raise KeyboardInterrupt
        received.append(signals.Signals(number))

    # Python delivers signals to the main thread alone, and refuses handlers from others.
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signals.signal(number, note) for number in _STOPPING}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signals.signal(number, handler)
