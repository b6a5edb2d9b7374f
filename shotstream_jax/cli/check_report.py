"""The report of `shotstream check`, as text and as JSON."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

import rich.box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from shotstream_jax.perf.plan.estimate import Estimate
from shotstream_jax.story import FrameRef, Problem, Shot, Story, field_name


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
      rate_reason: where the rate comes from that time is estimated by.
    """

    story: Story
    rows: tuple[ShotRow, ...]
    token_limit: int
    warnings: tuple[Problem, ...]
    estimate: Estimate
    rate_reason: str = "assumed"


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
        "warnings": plain_problems(report.warnings),
        "estimate": {
            "flops": sum(cost.shot_flops),
            "assumed_flops_per_second": cost.flops_per_second,
            "rate": report.rate_reason,
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
    return Group(title, _table(report), *notes, _cost_line(report.estimate, report.rate_reason))


def _table(report: StoryReport) -> Table:
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    # Captions fold and are never cut, however narrow the terminal: they are what is checked.
    table.add_column("shot", overflow="fold")
    table.add_column("caption", ratio=2, overflow="fold", min_width=12)
    for name in ("tokens", "chunks", "seconds", "seed"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("camera", ratio=1, overflow="fold", min_width=8)
    for row in report.rows:
        shot = row.shot
        over = row.tokens is not None and row.tokens > report.token_limit
        counted = "" if row.tokens is None else f"{row.tokens}/{report.token_limit}"
        table.add_row(
            Text(str(shot.id)),
            # YAML folds long captions over lines, which would break the table's row.
            Text(" ".join(shot.caption.split())),
            Text(counted, "yellow" if over else ""),
            str(shot.chunks),
            f"{row.seconds:.1f}",
            str(shot.seed),
            Text(_camera(row, report.story)),
        )
    return table


def _camera(row: ShotRow, story: Story) -> str:
    if row.shot.transition == "continue":
        return "goes on"
    seen: dict[int, list[int]] = {}
    for ref in row.context:
        seen.setdefault(ref.shot, []).append(ref.frame)
    parts = (f"{story.shots[k].id} {' '.join(map(str, f))}" for k, f in seen.items())
    return f"cut, sees {', '.join(parts)}" if seen else "cut"


def _cost_line(cost: Estimate, reason: str) -> Text:
    # The three that a smaller size or another format could change most.
    largest = sorted(cost.memory.items(), key=lambda item: -item[1])[:3]
    parts = ", ".join(f"{name} {_size(held)}" for name, held in largest)
    return Text(
        f"Estimate, not a measurement: {cost.seconds:,.1f} s to film at "
        f"{_rate(cost.flops_per_second)} ({reason}); "
        f"{_size(cost.memory_bytes)} of device memory before activations ({parts})."
    )


def _rate(flops: float) -> str:
    return f"{flops / 1e12:g} TFLOP/s" if flops >= 1e12 else f"{flops / 1e9:.0f} GFLOP/s"


def _size(held: int) -> str:
    # Decimal units, as on data sheets of accelerators; the small model would read 0.0 GB.
    return f"{held / 1e9:.1f} GB" if held >= 1e8 else f"{held / 1e6:.1f} MB"


def plain_problems(problems: Sequence[Problem]) -> list[dict[str, str]]:
    """Problems as JSON has them."""
    return [{"where": p.where, "field": field_name(p.path), "message": p.message} for p in problems]


def write_json(value: dict[str, Any]) -> None:
    """Print one JSON object."""
    # Captions may be in any script, and are to be read.
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
