"""`shotstream check`: a story's shots, its problems, and an estimate of what filming it takes.

Problems are printed one a line, each with `file:line`, field, both values and the next step.
Nothing is compiled and no weights are read: memory and time are estimates, and are called so.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import rich.box
import tyro
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from shotstream_jax.cli.exit_codes import ExitCode
from shotstream_jax.model import find_model
from shotstream_jax.model_config import ModelConfig
from shotstream_jax.perf.plan.estimate import Estimate, estimate
from shotstream_jax.presets import PRESETS
from shotstream_jax.story import (
    FrameRef,
    Problem,
    Shot,
    Story,
    StoryError,
    StoryFile,
    camera_start,
    context_frames,
    field_name,
    full_captions,
    read_story,
    shot_lengths,
)

TokenCounter = Callable[[str], int]
"""Tokens of a full caption, end token included."""

# 40 % of an H100's 989 dense bfloat16 TFLOP/s, which large transformers reach in training.
ASSUMED_TFLOPS = 400.0
"""What well compiled programs sustain on one H100; a guess, to be replaced by a measurement."""

# The start of a caption identifies it; the table keeps to a terminal of 100 columns.
_CAPTION_SHOWN = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShotRow:
    """One shot of a checked story.

    Attributes:
      shot: with every default filled in.
      tokens: of its full caption, `None` without a tokenizer.
      seconds: its length when played.
      context: frames of earlier shots that it sees.
    """

    shot: Shot
    tokens: int | None
    seconds: float
    context: tuple[FrameRef, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoryReport:
    """The result of a check of a story that can be filmed.

    Attributes:
      story: with every default filled in.
      rows: its shots.
      token_limit: tokens that the text encoder reads.
      warnings: problems that do not prevent filming.
      estimate: memory and time.
    """

    story: Story
    rows: tuple[ShotRow, ...]
    token_limit: int
    warnings: tuple[Problem, ...]
    estimate: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """Which story, and what it would be filmed with.

    Attributes:
      story: a story: .yaml, .json, or a row of a reference table as table.csv#1.
      checkpoint: checkpoint folder to film with; without it the preset is used.
      preset: sizes to estimate by; captions are counted where a tokenizer comes with them.
      tflops: operations that the device is assumed to sustain, in 1e12 a second.
      json: print one JSON object.
    """

    story: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORY")]
    checkpoint: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    preset: Literal["tiny", "wan-1.3b", "wan-14b"] = "tiny"
    tflops: float = ASSUMED_TFLOPS
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def check_story(args: Annotated[Check, tyro.conf.arg(name="")]) -> int:
    """Print a story's problems, its shots with their tokens, and an estimate of memory and time.

    Args:
      args: which story, and what it would be filmed with.

    Returns:
      `DONE` for a story that can be filmed, with or without warnings; else `BAD_INPUT`.
    """
    count_tokens = None
    # Only the miniature comes with a tokenizer; without one, captions of other presets are not
    # counted.
    if args.checkpoint is None and args.preset != "tiny":
        config = PRESETS[args.preset]
    else:
        source = find_model(args.checkpoint or args.preset)
        config, count_tokens = source.config, source.tokenizer.count
    return check(args.story, config, count_tokens, tflops=args.tflops, as_json=args.json)


def check(
    path: str,
    config: ModelConfig,
    count_tokens: TokenCounter | None = None,
    *,
    tflops: float = ASSUMED_TFLOPS,
    as_json: bool = False,
) -> int:
    """Print what `examine` finds in a story file; returns the exit status."""
    try:
        report = examine(read_story(path), config, tflops * 1e12, count_tokens)
    except StoryError as error:
        if as_json:
            _write_json({"ok": False, "problems": _plain_problems(error.problems)})
        else:
            # One a line, beginning with file:line, as compilers do: editors jump there.
            sys.stderr.writelines(f"{problem}\n" for problem in error.problems)
        return ExitCode.BAD_INPUT
    if as_json:
        _write_json(plain_report(report))
    else:
        Console().print(render_report(report))
    return ExitCode.DONE


def examine(
    file: StoryFile,
    config: ModelConfig,
    flops_per_second: float,
    count_tokens: TokenCounter | None = None,
) -> StoryReport:
    """Check a story: tokens, context and length of each shot, warnings, memory and time.

    Raises:
      StoryError: a film size that the networks cannot divide.
      ValueError: a rate that is not positive.
    """
    story = file.story.resolved()
    try:
        cost = estimate(story, config, flops_per_second)
    except ValueError as error:
        # The estimate refuses rates and sizes alike; only a size is the story's fault.
        if not flops_per_second > 0:
            raise
        field = ("defaults", "size")
        raise StoryError([Problem(field, str(error), file.places.of(field))]) from None
    rows = _rows(story, config, count_tokens)
    limit = config.dit.text_tokens
    # Warnings and not errors: the film would be made, though not as its author means it.
    warnings = (*_token_warnings(rows, limit), *_camera_warnings(story, config))
    if len(rows) > 1 and not story.global_caption.strip():
        message = "missing; nothing says what the shots share: name characters, place and style"
        warnings = (Problem(("global",), message), *warnings)
    return StoryReport(
        story=story,
        rows=rows,
        token_limit=limit,
        warnings=file.places.locate(warnings),
        estimate=cost,
    )


def _rows(
    story: Story, config: ModelConfig, count_tokens: TokenCounter | None
) -> tuple[ShotRow, ...]:
    chunk, stride = config.rollout.window.chunk, config.vae.temporal_stride
    lengths = shot_lengths(story, chunk_frames=chunk, temporal_stride=stride)
    return tuple(
        ShotRow(
            shot=shot,
            tokens=count_tokens(caption) if count_tokens else None,
            seconds=lengths[index] / story.defaults.fps,
            context=context_frames(
                lengths[: camera_start(story, index)], config.rollout.window.context
            ),
        )
        for index, (shot, caption) in enumerate(zip(story.shots, full_captions(story), strict=True))
    )


def _token_warnings(rows: Sequence[ShotRow], limit: int) -> tuple[Problem, ...]:
    return tuple(
        Problem(
            ("shots", index, "caption"),
            f"{row.tokens} tokens with the global caption, the text encoder reads {limit}; "
            f"take out {row.tokens - limit}",
        )
        for index, row in enumerate(rows)
        if row.tokens is not None and row.tokens > limit
    )


def _camera_warnings(story: Story, config: ModelConfig) -> tuple[Problem, ...]:
    # Since the cut, not of the shot: a shot that continues goes on in the same cache and positions.
    room = config.rollout.window.local // config.rollout.window.chunk
    warnings = []
    for index in range(len(story.shots)):
        camera = story.shots[camera_start(story, index) : index + 1]
        chunks = sum(shot.chunks or story.defaults.chunks for shot in camera)
        if chunks > room:
            message = (
                f"{chunks} chunks since the last cut, the network looks back over {room}; "
                "cut sooner if the shot drifts"
            )
            warnings.append(Problem(("shots", index), message))
    return tuple(warnings)


def plain_report(report: StoryReport) -> dict[str, Any]:
    """A report as JSON has it; sizes in bytes, times in seconds."""
    story, cost = report.story, report.estimate
    return {
        "ok": True,
        "title": story.title,
        "size": list(story.defaults.size),
        "fps": story.defaults.fps,
        "seconds": sum(row.seconds for row in report.rows),
        "token_limit": report.token_limit,
        "shots": [
            {
                **dataclasses.asdict(row.shot),
                "tokens": row.tokens,
                "seconds": row.seconds,
                "context": [[ref.shot, ref.frame] for ref in row.context],
                "estimated_seconds": taken,
            }
            for row, taken in zip(report.rows, cost.shot_seconds, strict=True)
        ],
        "warnings": _plain_problems(report.warnings),
        "estimate": {
            "flops": sum(cost.shot_flops),
            "assumed_flops_per_second": cost.flops_per_second,
            "seconds": cost.seconds,
            "memory_bytes": cost.memory_bytes,
            "memory": dict(cost.memory),
        },
    }


def render_report(report: StoryReport) -> Group:
    """A report as text."""
    story = report.story
    height, width = story.defaults.size
    seconds = sum(row.seconds for row in report.rows)
    title = Text.assemble(
        (story.title, "bold"),
        f"  {width} x {height}, {story.defaults.fps} fps, {seconds:.1f} s",
    )
    notes = [Text(f"Warning: {warning}", "yellow") for warning in report.warnings]
    if any(row.tokens is None for row in report.rows):
        notes.append(Text("Tokens were not counted: no tokenizer was given.", "dim"))
    return Group(title, _table(report), *notes, _cost_line(report.estimate))


def _table(report: StoryReport) -> Table:
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("shot", no_wrap=True)
    table.add_column("caption", ratio=1)
    for name in ("tokens", "chunks", "seconds", "seed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("camera", ratio=1)
    for row in report.rows:
        shot = row.shot
        over = row.tokens is not None and row.tokens > report.token_limit
        counted = "" if row.tokens is None else f"{row.tokens}/{report.token_limit}"
        table.add_row(
            Text(str(shot.id)),
            Text(_start(shot.caption)),
            Text(counted, "yellow" if over else ""),
            str(shot.chunks),
            f"{row.seconds:.1f}",
            str(shot.seed),
            Text(_camera(row, report.story)),
        )
    return table


def _start(caption: str) -> str:
    # YAML folds long captions over lines, which would break the table's row.
    line = " ".join(caption.split())
    return line if len(line) <= _CAPTION_SHOWN else f"{line[: _CAPTION_SHOWN - 1]}…"


def _camera(row: ShotRow, story: Story) -> str:
    if row.shot.transition == "continue":
        return "goes on"
    seen: dict[int, list[int]] = {}
    for ref in row.context:
        seen.setdefault(ref.shot, []).append(ref.frame)
    parts = (f"{story.shots[k].id} {' '.join(map(str, f))}" for k, f in seen.items())
    return f"cut, sees {', '.join(parts)}" if seen else "cut"


def _cost_line(cost: Estimate) -> Text:
    rate = cost.flops_per_second / 1e12
    # The three that a smaller size or another format could change most.
    largest = sorted(cost.memory.items(), key=lambda item: -item[1])[:3]
    parts = ", ".join(f"{name} {_size(held)}" for name, held in largest)
    return Text(
        f"Estimate, not a measurement: {cost.seconds:,.1f} s to film at {rate:g} TFLOP/s; "
        f"{_size(cost.memory_bytes)} of device memory before activations ({parts})."
    )


def _size(held: int) -> str:
    # Decimal units, as on data sheets of accelerators; the small model would read 0.0 GB.
    return f"{held / 1e9:.1f} GB" if held >= 1e8 else f"{held / 1e6:.1f} MB"


def _plain_problems(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"where": p.where, "field": field_name(p.path), "message": p.message} for p in problems]


def _write_json(value: dict[str, Any]) -> None:
    # Captions may be in any script, and are to be read.
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
