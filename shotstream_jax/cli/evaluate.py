"""`shotstream eval`: films of unseen stories, judged by a program that knows what they should show.

    shotstream eval --checkpoint runs/tiny/model --stories 200
    shotstream eval --checkpoint runs/tiny/teacher --role teacher --guidance 3
    shotstream eval --role autoencoder                    what no film can be better than
    shotstream eval --table ablations                     models of configs/ablations.py, compared

With --json, `metrics` holds one number a metric and `intervals` the 95 % interval of each.
"""

import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import rich.box
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shotstream_jax.cli.comparison_table import find_table, make_table, stored
from shotstream_jax.cli.exit_codes import ExitCode
from shotstream_jax.cli.options import open_named
from shotstream_jax.cli.progress_bar import ProgressBar, pace
from shotstream_jax.cli.train import train_file
from shotstream_jax.evaluation.eval_options import EvalOptions, command_line
from shotstream_jax.evaluation.films import EvalSetup, EvalStory, ShotVideos, draw_stories
from shotstream_jax.evaluation.generators import BindGenerator, bind_generator
from shotstream_jax.evaluation.passes import Evaluation, EvaluationProgress, plan_passes, run_passes
from shotstream_jax.evaluation.scores import Metric, PassName
from shotstream_jax.evaluation.story_sheet import SHOWN, save_story_sheet
from shotstream_jax.evaluation.teacher_films import BATCH
from shotstream_jax.files import atomic_file
from shotstream_jax.model import Model
from shotstream_jax.perf.bench.provenance import provenance
from shotstream_jax.progress import RateMeter, seconds_left
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.teacher import SampleConfig
from shotstream_jax.storyworld.geometry import Picture

METRICS, SHEET = "metrics.json", "contact.png"

# Ten lines a run in a log file: enough to see that it goes on, few enough to read.
_LINES = 10


def evaluate(args: Annotated[EvalOptions, tyro.conf.arg(name="")]) -> int:
    """Evaluate a model on stories that it has not seen.

    Stories are filmed three times. The first films are the model's own, for all metrics but one.
    Carry-over, of what no caption tells, is that of films after true first shots (--given): a model
    that always makes the same choice keeps it without any memory. These films are made again with
    no context, to compare. Means have 95 % intervals, by drawing the stories anew.

    Args:
      args: what is evaluated, and by which stories.

    Returns:
      Exit status: that of training where a table's model was stopped, else 0.

    Raises:
      ValueError: stories, sizes or options that will not do.
      OSError: no such model, or a folder that cannot be written.
    """
    console = Console(stderr=True)
    if args.table:
        return _make_table(args, console)
    document, metrics = _evaluate_one(args, console)
    if args.json:
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    else:
        Console().print(_table(metrics))
    return ExitCode.DONE


def _make_table(args: EvalOptions, console: Console) -> int:
    # Every row has options of its own in the file: one that is given here would change none of
    # them.
    if args != EvalOptions(table=args.table):
        raise ValueError("--table takes all other options from its file; give it alone.")

    def judge(row: EvalOptions) -> Mapping[str, Any]:
        before = stored(row.output, command_line(row)) if row.output else None
        return before or _evaluate_one(row, console)[0]

    status, made = make_table(find_table(args.table), train_file, judge)
    if made is not None:
        sys.stdout.write(made.read_text(encoding="utf-8"))
        console.print(Text(f"{made} is ready."), soft_wrap=True)
    return status


def _evaluate_one(
    args: EvalOptions, console: Console
) -> tuple[dict[str, Any], Mapping[str, Metric]]:
    """Film, score, and write what was found; as JSON has it, and with intervals."""
    began = time.perf_counter()
    stories = draw_stories(args.stories, args.shots, seed=args.seed, split=args.split)
    setup = EvalSetup(
        picture=Picture(height=args.size[0], width=args.size[1]),
        video_frames=args.video_frames,
        context=not args.no_context,
        policy=args.policy,
        captions=args.context_captions,
    )
    if args.output is not None:
        # Before hours of films: a folder that cannot be made is refused at once.
        args.output.mkdir(parents=True, exist_ok=True)
    source = args.checkpoint or args.preset
    model = open_named(source, args.dtype, args.devices, approximate=args.approximate)
    console.print(Text(_summary(args, model)), soft_wrap=True)
    # True films and reconstructions take nothing from a context: one pass says it all.
    passes: dict[PassName, EvalSetup] = {"own": setup}
    if args.role in ("student", "teacher"):
        passes = plan_passes(setup, args.given)
    with ProgressBar(console, "oracle") as bar:
        shown = _FirstFilms(bar)
        found = run_passes(_generator(args, model.networks), passes, stories, watch=shown.watch)
    document = _document(args, model, passes, found, time.perf_counter() - began)
    if args.output is not None:
        _write(args, model, document, stories, shown.films)
    return document, found.metrics


def _generator(args: EvalOptions, networks: Networks) -> BindGenerator:
    settings = {
        name: getattr(args, name) for name in ("solver", "steps", "guidance", "history_guidance")
    }
    sample = SampleConfig(
        shift=networks.config.rollout.shift,
        # An option that was not given leaves the default of `SampleConfig`.
        **{name: value for name, value in settings.items() if value is not None},
    )
    return bind_generator(
        args.role,
        networks,
        sample=sample,
        negative=args.negative,
        batch=BATCH if args.batch is None else args.batch,
    )


def _summary(args: EvalOptions, model: Model) -> str:
    shots = "-".join(map(str, sorted({min(args.shots), max(args.shots)})))
    height, width = args.size
    return (
        f"{args.stories} {args.split} stories of {shots} shots, {height} x {width}: "
        f"{', '.join(filter(None, _made_by(args, model)))}."
    )


def _made_by(args: EvalOptions, model: Model) -> tuple[str, str]:
    """Who made the films, and what must not be overlooked."""
    if args.role == "true":
        return "true films", ""
    return f"{args.role} of {model.name}", model.badge


def _document(
    args: EvalOptions,
    model: Model,
    passes: Mapping[PassName, EvalSetup],
    found: Evaluation,
    seconds: float,
) -> dict[str, Any]:
    """Everything that was measured, and what it takes to measure it again."""
    return {
        "metrics": {name: metric.value for name, metric in found.metrics.items()},
        "intervals": {name: [metric.low, metric.high] for name, metric in found.metrics.items()},
        "role": args.role,
        "model": model.name,
        "weights": model.weights,
        "approximate": list(model.networks.approximation.names),
        "digest": model.digest,
        "stories": args.stories,
        "shots": list(args.shots),
        "seed": args.seed,
        "split": args.split,
        "passes": {
            name: {"given": setup.reference_shots, "context": setup.context}
            for name, setup in passes.items()
        },
        "size": list(args.size),
        "video_frames": args.video_frames,
        "seconds": round(seconds, 3),
        "frames_per_second": round(found.frames / found.seconds, 3),
        # Not the words that were typed: a table calls this from its own command, and looks for
        # results by these.
        **provenance(command_line(args)),
    }


def _write(
    args: EvalOptions,
    model: Model,
    document: Mapping[str, Any],
    stories: Sequence[EvalStory],
    films: Sequence[ShotVideos],
) -> None:
    folder = args.output or pathlib.Path()
    with atomic_file(folder / METRICS) as partial:
        partial.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    title, badge = _made_by(args, model)
    save_story_sheet(folder / SHEET, stories, films, title=title, badge=badge)


_ROWS = {
    "prompt_accuracy": "prompt accuracy",
    "carry_over": "carry-over",
    "carry_over_own": "carry-over, own films",
    "carry_over_no_context": "carry-over, no context",
    "carry_over_chance": "carry-over, chance",
    "identity": "identity",
    "cut_accuracy": "cut accuracy",
    "motion": "motion",
    "flicker": "flicker",
    "drift": "drift",
    "oracle_accuracy": "oracle accuracy",
}
"""Metrics that a person is shown, and what they are called."""

_WITH_PARTS = ("prompt_accuracy", "carry_over")
_ORACLES = {"cut_accuracy": "oracle_accuracy/cuts"}


def _table(metrics: Mapping[str, Metric]) -> Table:
    """Metrics and their parts, and beside them how the oracle fares on true films."""
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric", no_wrap=True)
    for name in ("value", "95 % interval", "oracle on true films"):
        table.add_column(name, justify="right", no_wrap=True)
    for metric, label in _ROWS.items():
        if metric not in metrics:
            continue
        table.add_row(label, *_cells(metrics, metric, _ORACLES.get(metric)))
        parts = [name for name in metrics if name.startswith(f"{metric}/")]
        for part in parts if metric in _WITH_PARTS else ():
            name = part.removeprefix(f"{metric}/")
            cells = _cells(metrics, part, f"oracle_accuracy/{name}")
            table.add_row(f"  {name.replace('_', ' ')}", *cells)
    return table


def _cells(metrics: Mapping[str, Metric], name: str, oracle: str | None) -> tuple[str, str, str]:
    metric, known = metrics[name], metrics.get(oracle or "")
    # Chance is computed, not measured: it has no interval.
    interval = f"{metric.low:.3f} to {metric.high:.3f}" if metric.low < metric.high else ""
    return f"{metric.value:.3f}", interval, f"{known.value:.3f}" if known else ""


class _FirstFilms:
    """Shows the progress, and keeps the first films for the contact sheet."""

    def __init__(self, bar: ProgressBar) -> None:
        self.films: list[ShotVideos] = []
        self._bar, self._meter = bar, RateMeter()

    def watch(self, progress: EvaluationProgress) -> None:
        """Show that a film was scored, and keep it if it is one of the first."""
        # No more than the sheet shows: 200 films of the miniature's size would take 0.2 GB.
        if progress.part == "own" and progress.film and len(self.films) < SHOWN:
            self.films.append(progress.film)
        part = progress.part.replace("_", " ")
        self._meter.count()
        left = seconds_left(progress.total - progress.done, self._meter.rate)
        status = f"{progress.done}/{progress.total}  {pace(self._meter.rate, 'films', left)}"
        self._bar.update(part, done=progress.done, total=progress.total, status=status)
        if progress.done % -(-progress.total // _LINES) == 0:
            self._bar.line_without_bar(f"{progress.done}/{progress.total} films scored ({part}).")
