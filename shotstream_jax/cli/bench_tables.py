"""What `shotstream bench` found, for a person to read."""

from collections.abc import Iterator, Mapping
from typing import Any

import rich.box
from rich.console import Group
from rich.table import Table
from rich.text import Text


def film_table(found: Mapping[str, Any]) -> Group:
    """A film: end to end first, then its parts."""
    # End to end comes first: parts that are timed alone and added up leave out what lies between
    # them, and count what overlaps twice.
    film, arrived, model = found["film"], found["end_to_end"], found["model"]
    height, width = film["size"]
    title = Text.assemble(
        (f"{arrived['fps']:.2f} frames/s", "bold"),
        f" end to end: {film['shots']} shots of {film['frames_per_shot']} frames, "
        f"{height} x {width}; {', '.join(_way(model))}, on {found['device']}.",
    )
    compiled, memory = found["compile"], found["memory"]
    lines = [
        f"First frames after {arrived['time_to_first_frame']:.3f} s; "
        f"at a cut {_spread(arrived['cut_latency'])}; "
        f"between chunks {_spread(arrived['chunk_interval'])}.",
        # Three waits that users know: the first run on a machine, a new process later, a film
        # within one.
        f"First shot {compiled['cold_seconds']:.1f} s compiling all, "
        f"{compiled['warm_seconds']:.1f} s compiling nothing anew, "
        f"{compiled['ready_seconds']:.1f} s when ready.",
        f"Peak memory: device {_gib(memory['device_peak_bytes'])}, "
        f"host {_gib(memory['host_peak_bytes'])}.",
    ]
    return Group(title, *(Text(line) for line in lines), _split_table(found["split"]))


def _way(model: Mapping[str, Any]) -> Iterator[str]:
    """What filmed, and everything in which it did not film as usual."""
    yield model["name"]
    yield f"{model['weights']} weights"
    yield model["dtype"]
    if model["merged"]:
        yield "merged passes"
    if model["approximate"]:
        yield f"approximate ({', '.join(model['approximate'])})"


def _split_table(split: Mapping[str, Any]) -> Table:
    table = Table(
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
        caption="Parts one after another, each waited for; in a film they overlap.",
    )
    table.add_column("part", no_wrap=True)
    for name in ("calls", "ms/call", "seconds", "TFLOP/s", "of peak"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, part in split["parts"].items():
        # Parts without matrix products to speak of have no rate: a share of the peak would say
        # nothing of them.
        rate = split["achieved"].get(name, {})
        table.add_row(
            name,
            str(part["calls"]),
            f"{1e3 * part['seconds_per_call']:.2f}",
            f"{part['seconds']:.3f}",
            _rate(rate.get("tflops_per_second"), ".3g"),
            _rate(rate.get("share_of_peak"), ".1%"),
        )
    # What no part accounts for, in sight: host code between programs grows here unnoticed
    # otherwise.
    table.add_row("other", "", "", f"{split['other_seconds']:.3f}", "", "")
    return table


def kernels_table(found: Mapping[str, Any]) -> Group:
    """Every kernel by every way to compute it, and why some were not measured."""
    title = f"Kernels of {found['shapes_of']} on {found['device']}"
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, title=title)
    for name in ("kernel", "by", "keys", "keys known"):
        table.add_column(name, no_wrap=True)
    for name in ("ms", "TFLOP/s", "of peak"):
        table.add_column(name, justify="right", no_wrap=True)
    missing = {}
    for row in found["kernels"]:
        by = row.get("backend") or row["lowering"]
        # One reason a backend is enough: what a machine lacks, it lacks for every shape.
        if "seconds" not in row:
            missing[by] = row.get("skipped") or f"failed: {row['failed']}"
            continue
        table.add_row(
            row["kernel"],
            by,
            str(row.get("keys", "")),
            row.get("keys_known", ""),
            f"{1e3 * row['seconds']:.3f}",
            _rate(row["tflops_per_second"], ".3g"),
            _rate(row["share_of_peak"], ".1%"),
        )
    return Group(table, *(Text(f"{by}: {why}.") for by, why in missing.items()))


def _spread(times: Mapping[str, Any] | None) -> str:
    if times is None:
        return "none"
    return f"{times['p50']:.3f} s (p95 {times['p95']:.3f}, max {times['max']:.3f})"


def _gib(size: int | None) -> str:
    return "not counted" if size is None else f"{size / (1 << 30):.2f} GiB"


def _rate(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
