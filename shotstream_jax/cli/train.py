"""`shotstream train`: an experiment file in, a run's folder out; stops and goes on when asked.

An experiment trains a network, makes a dataset, or lists others that are run one after the other.

    shotstream train configs/tiny_vae.py --steps 10 --optimizer.learning-rate 1e-4

Exit status: 0 trained, 43 given up on steps without a finite gradient, 130 or 143 stopped by Ctrl-C
or SIGTERM with everything saved; bad input is an error in one line.
"""

import contextlib
import dataclasses
import io
import itertools
import pathlib
import signal
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text

from shotstream_jax.cli.look import look
from shotstream_jax.train.engine import loop
from shotstream_jax.train.engine.dataset_job import Making
from shotstream_jax.train.engine.experiment import load_config, nearest
from shotstream_jax.train.engine.pipeline import Experiment, Pipeline, is_done, run
from shotstream_jax.train.engine.run_folder import EXPORT, Existing
from shotstream_jax.train.engine.stage import Training

DIVERGED = 43
_STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}
_HELP = ("-h", "--help")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train a stage, as an experiment file says, with any of its settings overridden.

    `shotstream train FILE --help` lists the settings of a file.

    Attributes:
      experiment: a Python file that defines `config`, such as configs/tiny_vae.py.
      resume: go on with the run in the output folder; begin it if there is none.
      overwrite: remove the run in the output folder, and begin.
    """

    experiment: Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def train(argv: Sequence[str]) -> int:
    """Run the command on its own arguments, and return its exit status.

    Raises:
      ValueError: a file, an override, a folder or data that will not do; or trained networks that
        are not good enough for the next stage.
      OSError: files that cannot be read or written.
    """
    wants_help = len(argv) > 1 and argv[-1] in _HELP
    given = argv[:-1] if wants_help else argv
    args, overrides = tyro.cli(Train, prog="shotstream train", args=given, return_unknown_args=True)
    config = load_experiment(args.experiment)
    config = override(config, [*overrides, "--help"] if wants_help else overrides)
    if args.resume and args.overwrite:
        raise ValueError("--resume and --overwrite are opposites; give one of them.")
    existing: Existing = "resume" if args.resume else "overwrite" if args.overwrite else "refuse"
    console = Console(stderr=True)
    if isinstance(config, Pipeline):
        return _run_all(config, args.experiment.parent, existing, console)
    return _run_one(config, existing, console)


def train_file(path: pathlib.Path) -> tuple[int, pathlib.Path]:
    """Make sure that an experiment is done, going on with what there is of it.

    Returns:
      Exit status, and the folder of the run.

    Raises:
      ValueError: as `train`.
      OSError: as `train`.
    """
    console, experiment = Console(stderr=True), load_config(path, Training, Making)
    if is_done(experiment):
        return 0, experiment.output
    _tell(console, f"{path}:")
    return _run_one(experiment, "resume", console), experiment.output


def _run_one(config: Experiment, existing: Existing, console: Console) -> int:
    with _Display(console) as display:
        outcome = run(config, existing=existing, watch=display.watch, look=look)
    return _say_goodbye(outcome, config, console)


def _run_all(pipeline: Pipeline, beside: pathlib.Path, existing: Existing, console: Console) -> int:
    """Run what is not done yet, stage by stage; the first that does not finish ends it."""
    files = [beside / stage for stage in pipeline.stages]
    experiments = [load_experiment(file) for file in files]
    for number, (file, experiment) in enumerate(zip(files, experiments, strict=True), 1):
        if isinstance(experiment, Pipeline):
            raise ValueError(f"{file} lists stages itself; list them instead of it.")
        place = f"Stage {number} of {len(files)}, {file.name}"
        if existing == "resume" and is_done(experiment):
            _tell(console, f"{place}: done before.")
            continue
        _tell(console, f"{place}:")
        status = _run_one(experiment, existing, console)
        if status:
            return status
    return 0


def load_experiment(path: pathlib.Path) -> Experiment | Pipeline:
    """The stage or stages that an experiment file defines.

    Raises:
      ValueError: there is no such file, or it defines neither.
    """
    return load_config(path, Training, Making, Pipeline)


def override(config: Experiment | Pipeline, overrides: Sequence[str]) -> Experiment | Pipeline:
    """The same settings with other values, given as `--name value` for any dotted name.

    Raises:
      ValueError: a name that there is not, a value of another type, or values out of range.
    """
    options = set(_options(config))
    groups = _groups(overrides)
    for group in groups:
        if group[0] not in {*options, *_HELP}:
            raise ValueError(
                f"There is no setting {group[0]}{nearest(group[0], sorted(options))} "
                "(--help lists all settings)."
            )
    wants_help = any(group[0] in _HELP for group in groups)
    said = io.StringIO()
    try:
        with contextlib.nullcontext() if wants_help else contextlib.redirect_stderr(said):
            return tyro.cli(
                type(config),
                prog="shotstream train FILE",
                default=config,
                args=[word for group in groups for word in group],
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(f"{_reason(said.getvalue())} (--help lists all settings).") from stop


def _options(value: Any, name: str = "") -> Iterator[str]:
    """Names on the command line of all settings below a config."""
    if dataclasses.is_dataclass(value):
        parts = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    elif isinstance(value, tuple) and any(dataclasses.is_dataclass(part) for part in value):
        parts = [(str(index), part) for index, part in enumerate(value)]
    else:
        yield f"--{name}"
        if isinstance(value, bool):
            head, dot, last = name.rpartition(".")
            yield f"--{head}{dot}no-{last}"
        return
    for key, part in parts:
        yield from _options(part, f"{name}.{key.replace('_', '-')}".removeprefix("."))


def _groups(overrides: Sequence[str]) -> list[list[str]]:
    """Options with their values: `--a 1 --b=2` becomes `--a 1` and `--b 2`."""
    groups: list[list[str]] = []
    for word in overrides:
        if word.startswith("--") or word in _HELP:
            name, equals, value = word.partition("=")
            groups.append([name.replace("_", "-"), value] if equals else [word.replace("_", "-")])
        elif groups:
            groups[-1].append(word)
        else:
            raise ValueError(f"{word!r} comes before any --setting that it could belong to.")
    return groups


def _reason(said: str) -> str:
    """The reason in tyro's message, on one line: what stands between its title and the next rule.

    The box around it is drawn in characters that depend on the terminal.
    """
    lines = [line.strip(" │|") for line in said.splitlines()[1:]]
    below = itertools.dropwhile(_is_rule, lines)
    return (
        " ".join(itertools.takewhile(lambda line: not _is_rule(line), below)) or "Not understood."
    )


def _is_rule(line: str) -> bool:
    return not line.strip("─-╰╯")


def _say_goodbye(outcome: loop.Outcome, config: Experiment, console: Console) -> int:
    again = "the same command with --resume goes on"
    match outcome.ended:
        case "finished":
            made = config.output if isinstance(config, Making) else config.output / EXPORT
            _tell(console, f"{made} is ready. {_numbers(outcome.scores)}")
            return 0
        case "stopped":
            _tell(console, f"Stopped and saved after step {outcome.step}; {again}.")
            return _STOPPED.get(outcome.signal, 1) if outcome.signal else 1
        case "diverged":
            _tell(
                console,
                f"Given up at step {outcome.step}: too many steps in a row without a finite "
                f"gradient. {outcome.dump} holds the last of them.",
            )
            return DIVERGED


class _Display:
    """A bar in a terminal, lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn()]
        self._bar = Progress(*columns, TextColumn("{task.fields[news]}"), console=console)
        self._task = self._bar.add_task("Compiling", total=None, news="")

    def __enter__(self) -> "_Display":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def watch(self, progress: loop.Progress) -> None:
        """Show a step."""
        place = f"step {progress.step}/{progress.steps}"
        if progress.scores:
            _tell(self._console, f"{place} validation: {_numbers(progress.scores)}")
            return
        news = "  ".join(filter(None, (_pace(progress), _numbers(_losses(progress)))))
        self._bar.update(
            self._task,
            description=place,
            completed=progress.step,
            total=progress.steps,
            news=news,
        )
        if progress.recorded and not self._console.is_terminal:
            _tell(self._console, f"{place}  {news}")


def _pace(progress: loop.Progress) -> str:
    if progress.rate is None or progress.seconds_left is None:
        return ""
    minutes, seconds = divmod(round(progress.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{progress.rate:.2f} steps/s, {hours}:{minutes:02d}:{seconds:02d} left"


def _losses(progress: loop.Progress) -> dict[str, float]:
    """Losses, and what else is worth a glance."""
    hidden = ("learning_rate", "steps_per_second", "grad_norm")
    shown = {k: v for k, v in progress.metrics.items() if not k.endswith(hidden)}
    if not shown.get("skipped"):
        shown.pop("skipped", None)
    return dict(sorted(shown.items(), key=lambda item: not item[0].endswith("/loss")))


def _numbers(values: Any) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def _tell(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)
