"""`shotstream plan`: compile what films for a TPU that is not here, and say whether it fits.

    shotstream plan --preset wan-1.3b --target v6e:1x1             the whole film, resident at once
    shotstream plan --program chunk --target v5e:2x2 --json        one program
    shotstream plan --table docs/plans                             shipped presets on usual targets
    shotstream plan --experiment configs/wan_teacher.py --target v5p:2x2x2     what trains

Memory is what the compiler says; times and rates are projections, and are called so.
"""

import dataclasses
import json
import pathlib
import re
import sys
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import rich.box
import tyro
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from shotstream_jax.cli.exit_codes import ExitCode
from shotstream_jax.cli.options import Approximate
from shotstream_jax.files import atomic_file
from shotstream_jax.models.compute import default_compute
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.perf.plan.compile import plan_program
from shotstream_jax.perf.plan.experiment_plan import plan_experiment
from shotstream_jax.perf.plan.film import project_film, project_program
from shotstream_jax.perf.plan.film_cost import program_flops
from shotstream_jax.perf.plan.film_programs import film_programs
from shotstream_jax.perf.plan.projection import check_share
from shotstream_jax.perf.targets import find_target, target_mesh
from shotstream_jax.presets import PRESETS
from shotstream_jax.rollout.approximate import Approximation, ApproximationName
from shotstream_jax.train.engine.dataset_job import DatasetJob
from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.engine.stage import Training

_IN_8_BITS: tuple[ApproximationName, ...] = ("int8-cache", "int8-weights")
# One chip of each generation; 8 bits and a slice as well where one v5e is all but full (15.67 of
# 15.75 GiB); and 14B on a v5p-8.
TABLE: tuple[tuple[str, str, tuple[ApproximationName, ...]], ...] = (
    ("wan-1.3b", "v5e:1x1", ()),
    ("wan-1.3b", "v5e:1x1", _IN_8_BITS),
    ("wan-1.3b", "v5e:2x2", ()),
    ("wan-1.3b", "v6e:1x1", ()),
    ("wan-1.3b", "v5p:1x1x1", ()),
    ("wan-1.3b", "tpu7x:1x1x1", ()),
    ("wan-14b", "v5p:2x2x1", ()),
)
"""What `--table` plans: presets, targets, and what is held in 8 bits."""

TABLE_FILE = "plans.md"
_COLUMNS = (
    *("preset", "target", "split", "8 bits", "fits"),
    *("weights, caches", "workspace", "code", "together", "limit"),
)
_SIZE = re.compile(r"(\d+)x(\d+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What to compile, and for which chips.

    Attributes:
      preset: sizes of the networks.
      program: one program; `all` of them; or `film`, everything that films on the chip at once.
      target: chip and topology, as v6e:1x1, v5e:2x2, v5p:2x2x2 or tpu7x:1x1x1.
      mesh: how to split, as tensor=4 or fsdp=2,tensor=4; by default heads as far as they go.
      size: height and width of the film.
      chunks: of a shot; by default as many as the network looks back over.
      merged: let clean and context passes share a pass with the step that follows.
      approximate: film in less memory or faster, not quite the same: int8-cache, int8-weights,
        no-clean-pass, latent-context.
      share_of_peak: what projections assume, of the chip's peak.
      experiment: plan the programs of an experiment file instead of a film; its own mesh is
        taken unless --mesh says data=2,fsdp=8.
      table: plan the shipped presets on usual targets into a folder: a JSON file each, which is
        kept when it is there, and a table of all.
      json: print one JSON object.
    """

    preset: Literal["tiny", "wan-1.3b", "wan-14b"] = "wan-1.3b"
    program: Literal[
        "film",
        "all",
        "text",
        "caption-keys",
        "encode",
        "context",
        "chunk",
        "commit",
        "context-chunk",
        "commit-chunk",
        "chunk-keys",
        "shot",
        "turn-back",
        "decode-first",
        "decode",
        "video-first",
        "video",
    ] = "film"
    target: Annotated[str, tyro.conf.arg(metavar="CHIP:TOPOLOGY")] = "v6e:1x1"
    mesh: Annotated[str, tyro.conf.arg(metavar="AXIS=N,...")] = ""
    size: Annotated[str, tyro.conf.arg(metavar="HxW")] = "480x832"
    chunks: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    merged: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    approximate: Approximate = ()
    # The share that large transformers reach in training, as `check` assumes of an H100.
    share_of_peak: float = 0.4
    experiment: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")] = None
    table: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False

    def __post_init__(self) -> None:
        """Raises: ValueError: a share that is none."""
        check_share(self.share_of_peak)


def plan(args: Annotated[PlanOptions, tyro.conf.arg(name="")]) -> int:
    """Compile the programs that film for a TPU that is not here: do they fit, how long would it be?

    Args:
      args: what to compile, and for which chips.

    Returns:
      `DONE` if all of it fits, `NEGATIVE` if not.

    Raises:
      ValueError: a target, mesh, size or share that will not do.
      OSError: a table that cannot be written.
    """
    console = Console(stderr=True, quiet=args.json)
    if args.table is not None:
        return _make_table(args, args.table, console)
    if args.experiment is None:
        found = make_plan(args)
    else:
        found = make_experiment_plan(args, args.experiment, console)
    if args.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        Console().print(_rendered(found))
    return ExitCode.DONE if found["fits"] else ExitCode.NEGATIVE


def make_plan(args: PlanOptions) -> dict[str, Any]:
    """A plan as JSON has it; sizes in bytes of one device, times in seconds."""
    config, target = PRESETS[args.preset], find_target(args.target)
    mesh = target_mesh(target, config.dit.heads, args.mesh)
    window = config.rollout.window
    shape = FilmShape(
        config=config,
        # The target's format and kernels, whatever this machine would choose for itself.
        compute=default_compute(config.dit.head_dim, jnp.bfloat16, "tpu", mesh),
        size=parse_size(args.size),
        chunks=window.local // window.chunk if args.chunks is None else args.chunks,
        merged_passes=args.merged,
        approximation=Approximation.named(args.approximate),
    )
    about = {
        "preset": args.preset,
        "program": args.program,
        "size": list(shape.size),
        "chunks": shape.chunks,
        "dtype": "bfloat16",
        "attention": shape.compute.attention,
        "share_of_peak": args.share_of_peak,
        **({"merged": True} if args.merged else {}),
        **({"approximate": list(shape.approximation.names)} if args.approximate else {}),
    }
    share = args.share_of_peak
    if args.program == "film":
        return {
            **about,
            **dataclasses.asdict(project_film(shape, target, mesh, share_of_peak=share)),
        }
    programs = film_programs(shape, mesh)
    plans = {}
    for name in programs if args.program == "all" else [args.program]:
        # One at a time: the compiler takes gigabytes for a full-size program.
        found = plan_program(programs[name], target, mesh, program_flops(shape, name))
        projection = project_program(found, shape, target, devices=mesh.size, share_of_peak=share)
        plans[name] = {**dataclasses.asdict(found), "projection": dataclasses.asdict(projection)}
    if args.program != "all":
        return {**about, **plans[args.program]}
    return {
        **about,
        "target": target.name,
        "mesh": next(iter(plans.values()))["mesh"],
        "fits": all(found["fits"] for found in plans.values()),
        "programs": plans,
    }


def make_experiment_plan(
    args: PlanOptions, experiment: pathlib.Path, console: Console
) -> dict[str, Any]:
    """Plans of the programs of an experiment as JSON has them; sizes in bytes of one device."""
    # A name before each: inter-shot distillation compiled for 644 and 586 s.
    found = plan_experiment(
        experiment,
        args.target,
        args.mesh,
        watch=lambda name: console.print(Text(f"{name} of {experiment} ..."), soft_wrap=True),
    )
    plans = {name: dataclasses.asdict(program) for name, program in found.items()}
    return {
        "experiment": str(experiment),
        "stage": type(load_config(experiment, Training, DatasetJob)).__name__,
        "target": args.target,
        "mesh": next(iter(plans.values()))["mesh"],
        "fits": all(found["fits"] for found in plans.values()),
        "programs": plans,
    }


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from `480x832`.

    Raises:
      ValueError: anything else.
    """
    sides = _SIZE.fullmatch(text)
    if sides is None:
        raise ValueError(f"Size {text!r} is not understood; give height x width, as 480x832.")
    return int(sides[1]), int(sides[2])


def _make_table(args: PlanOptions, folder: pathlib.Path, console: Console) -> int:
    rows = []
    for preset, target, approximate in TABLE:
        parts = [preset, target.replace(":", "-"), *(["int8"] if approximate else [])]
        path = folder / f"{'_'.join(parts)}.json"
        # A film's programs took 218 to 792 s to compile: a plan that is there is kept.
        if not path.exists():
            console.print(Text(f"{preset} on {target} ..."))
            asked = {"preset": preset, "target": target, "approximate": approximate}
            found = make_plan(dataclasses.replace(args, **asked, program="film", mesh=""))
            with atomic_file(path) as partial:
                partial.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        row = json.loads(path.read_text(encoding="utf-8"))
        # Columns of one table must assume the same.
        if row["share_of_peak"] != args.share_of_peak:
            raise ValueError(
                f"{path} assumes {row['share_of_peak']:.0%} of peak, not {args.share_of_peak:.0%}; "
                "remove it or give another folder."
            )
        rows.append(row)
    with atomic_file(folder / TABLE_FILE) as partial:
        partial.write_text(markdown(rows, args.share_of_peak), encoding="utf-8")
    console.print(Text(f"{folder / TABLE_FILE} is ready."), soft_wrap=True)
    return ExitCode.DONE


def markdown(rows: list[dict[str, Any]], share_of_peak: float) -> str:
    """A table of film plans; memory in GiB of one device."""
    heading = (*_COLUMNS, f"projected FPS at {share_of_peak:.0%} of peak")
    lines = [heading, ("---",) * len(heading), *(_cells(row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    memory = row["memory"]
    workspace = memory["temporaries"] + memory["outputs"]
    # A program that the compiler refused has told how much it would take, and not how that divides.
    known = row["fits"] or all(found["fits"] for found in row["programs"].values())
    return (
        row["preset"],
        row["target"],
        _split(row["mesh"]),
        ", ".join(name.removeprefix("int8-") for name in row.get("approximate", ())),
        "yes" if row["fits"] else "no",
        _gib(memory["arguments"]),
        *((_gib(workspace), _gib(memory["code"])) if known else ("-", "-")),
        _gib(memory["peak"]) if known else f"> {_gib(memory['peak'])}",
        _gib(memory["limit"]),
        f"{row['projection']['frames_per_second']:.1f}" if row["fits"] else "-",
    )


def _rendered(found: dict[str, Any]) -> Group:
    programs = found["programs"] if "programs" in found else {found["program"]: found}
    limit = next(iter(programs.values()))["memory"]["limit"]
    table = Table(
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
        title=_title(found),
        caption=f"GiB of a device, which has {_gib(limit)}, as the compiler says; "
        "seconds and fps are projections, not measurements.",
    )
    table.add_column("program", no_wrap=True)
    for name in ("fits", "arguments", "workspace", "peak", "TFLOP", "seconds", "fps"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in programs.items():
        _add_row(table, name, row)
    if found.get("program") == "film":
        _add_row(table, "film", {**found, "flops": {"analytic": found["flops"]}})
    problems = (row.get("problem") for row in programs.values())
    return Group(table, *(Text(problem, "red") for problem in problems if problem))


def _title(found: dict[str, Any]) -> str:
    place = f"on {found['target']}, {_split(found['mesh'])}"
    if "experiment" in found:
        return f"{found['experiment']} {place}"
    height, width = found["size"]
    how = f"{height} x {width}, {found['dtype']}, {found['attention']} attention"
    return f"{found['preset']} {place}; {how}"


def _add_row(table: Table, name: str, row: dict[str, Any]) -> None:
    memory, projection = row["memory"], row.get("projection", {})
    workspace = memory["temporaries"] + memory["outputs"] if "temporaries" in memory else None
    sizes = (memory["arguments"], workspace, memory.get("peak"))
    table.add_row(
        name,
        Text("yes" if row["fits"] else "no", "" if row["fits"] else "red"),
        *("-" if size is None else _gib(size) for size in sizes),
        _number(row["flops"]["analytic"] / 1e12 if "analytic" in row["flops"] else None, ".2f"),
        _number(projection.get("seconds"), ".3f"),
        _number(projection.get("frames_per_second"), ".1f"),
    )


def _split(mesh: dict[str, int]) -> str:
    return ", ".join(f"{axis}={size}" for axis, size in mesh.items()) or "one device"


def _gib(size: int) -> str:
    # GiB, since the compiler's limits are: 15.75 of a v5e's 16.
    return f"{size / (1 << 30):.2f}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
