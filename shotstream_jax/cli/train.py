"""`shotstream train`: an experiment file in, a run's folder out; stops and goes on when asked.

An experiment trains a network, makes a dataset, or lists others that are run one after the other.

    shotstream train configs/tiny_vae.py --steps 10 --optimizer.learning-rate 1e-4

tyro parses the overrides, suggests names for misspelt ones and prints the help of a file. Exit
status: exit_codes.py.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.text import Text

from shotstream_jax.cli.exit_codes import ExitCode
from shotstream_jax.cli.progress_bar import ProgressBar, pace
from shotstream_jax.train.engine import loop
from shotstream_jax.train.engine.dataset_job import DatasetJob
from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.engine.pipeline import Experiment, Pipeline, is_done, run
from shotstream_jax.train.engine.run_folder import EXPORT, Existing
from shotstream_jax.train.engine.stage import Training

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


def train_command(argv: Sequence[str]) -> int:
    """Run the command on its own arguments, and return its exit status.

    Raises:
      SystemExit: wrong options, or after printing help; see `override`.
      ValueError: a file, a folder or data that cannot be used; or trained networks that are not
        good enough for the next stage.
      OSError: files that cannot be read or written.
    """
    # `FILE --help` is about the settings of the file: the first parser must not answer it.
    about_file = [word for word in argv[1:] if word in _HELP]
    words = [*argv[:1], *(word for word in argv[1:] if word not in _HELP)]
    args, overrides = tyro.cli(Train, prog="shotstream train", args=words, return_unknown_args=True)
    config = load_experiment(args.experiment)
    # After the file was read, whose settings they are; what is no setting of it is refused by name.
    config = override(config, [*overrides, *about_file], args.experiment)
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
    console, experiment = Console(stderr=True), load_config(path, Training, DatasetJob)
    # A row of a table is trained once, however often the table is made.
    if is_done(experiment):
        return ExitCode.DONE, experiment.output
    _tell(console, f"{path}:")
    return _run_one(experiment, "resume", console), experiment.output


def _run_one(config: Experiment, existing: Existing, console: Console) -> int:
    with ProgressBar(console) as bar:
        outcome = run(config, existing=existing, watch=functools.partial(_show, bar))
    return _print_outcome(outcome, config, console)


def _run_all(pipeline: Pipeline, beside: pathlib.Path, existing: Existing, console: Console) -> int:
    """Run what is not done yet, stage by stage; the first that does not finish ends it."""
    files = [beside / stage for stage in pipeline.stages]
    # All files before any stage: a mistake in the last must not show after days of training.
    experiments = [load_experiment(file) for file in files]
    for number, (file, experiment) in enumerate(zip(files, experiments, strict=True), 1):
        if isinstance(experiment, Pipeline):
            raise ValueError(f"{file} lists stages itself; list them instead of it.")
        place = f"Stage {number} of {len(files)}, {file.name}"
        # Only with --resume: without it a finished stage is refused, as one experiment would be.
        if existing == "resume" and is_done(experiment):
            _tell(console, f"{place}: done before.")
            continue
        _tell(console, f"{place}:")
        status = _run_one(experiment, existing, console)
        # A later stage starts from what this one exports.
        if status:
            return status
    return ExitCode.DONE


def load_experiment(path: pathlib.Path) -> Experiment | Pipeline:
    """The stage or stages that an experiment file defines.

    Raises:
      ValueError: there is no such file, or it defines neither.
    """
    return load_config(path, Training, DatasetJob, Pipeline)


def override(
    config: Experiment | Pipeline, overrides: Sequence[str], experiment: pathlib.Path
) -> Experiment | Pipeline:
    """The settings of an experiment file with other values for some of them.

    Args:
      config: the settings of the file.
      overrides: `--name value`, for any setting by its dotted name.
      experiment: the file, to be named in the help.

    Raises:
      SystemExit: with status 0 after `--help`; or with `ExitCode.BAD_INPUT`, after a message on
        stderr that names the nearest setting, for a name that is not a setting, a value of another
        type, or a value out of range.
    """
    return tyro.cli(
        type(config), prog=f"shotstream train {experiment}", default=config, args=list(overrides)
    )


def _print_outcome(outcome: loop.Outcome, config: Experiment, console: Console) -> int:
    again = "the same command with --resume goes on"
    match outcome.ended:
        case "finished":
            made = config.output if isinstance(config, DatasetJob) else config.output / EXPORT
            _tell(console, f"{made} is ready. {_numbers(outcome.scores)}")
            return ExitCode.DONE
        case "stopped":
            _tell(console, f"Stopped and saved after step {outcome.step}; {again}.")
            return ExitCode.of_signal(outcome.signal)
        case "diverged":
            _tell(
                console,
                f"Given up at step {outcome.step}: too many steps in a row without a finite "
                f"gradient. {outcome.dump} holds the last of them.",
            )
            return ExitCode.DIVERGED


def _show(bar: ProgressBar, progress: loop.TrainProgress) -> None:
    """Show a step, and what was recorded with it."""
    place = f"step {progress.step}/{progress.steps}"
    if progress.scores:
        bar.line(f"{place} validation: {_numbers(progress.scores)}")
        return
    speed = pace(progress.rate, "steps", progress.seconds_left)
    status = "  ".join(filter(None, (speed, _numbers(_losses(progress)))))
    bar.update(place, done=progress.step, total=progress.steps, status=status)
    if progress.recorded:
        bar.line_without_bar(f"{place}  {status}")


def _losses(progress: loop.TrainProgress) -> dict[str, float]:
    """Metrics to show beside the bar, losses first."""
    # In every record, but no help while watching: the bar has room for a few numbers.
    hidden = ("learning_rate", "steps_per_second", "grad_norm")
    shown = {k: v for k, v in progress.metrics.items() if not k.endswith(hidden)}
    if not shown.get("skipped"):
        shown.pop("skipped", None)
    # False sorts first, and sorting is stable: losses lead, all else keeps its order.
    return dict(sorted(shown.items(), key=lambda item: not item[0].endswith("/loss")))


def _numbers(values: Any) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def _tell(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)
