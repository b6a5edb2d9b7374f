"""`shotstream convert`: official weights into a checkpoint folder, and a checkpoint back.

    shotstream convert Wan2.1-T2V-1.3B -o checkpoints/wan
    shotstream convert checkpoints/wan --to-official wan.safetensors
    shotstream convert runs/tiny/dmd_inter/export -o tiny --dtype bfloat16

What was found is printed before anything is written; partial weights are refused.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shotstream_jax.checkpoints.cast import cast_checkpoint
from shotstream_jax.checkpoints.lora_source import LoRARequest
from shotstream_jax.checkpoints.official import (
    export_official,
    import_source,
    refuse_misfits,
    report_on,
)
from shotstream_jax.checkpoints.report import MatchReport
from shotstream_jax.checkpoints.weight_sources import Source, find_source, is_checkpoint, with_loras
from shotstream_jax.cli.options import LoRAFiles

_Folder = Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")]
_File = Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convert:
    """What to convert, and into what.

    Attributes:
      source: Wan2.1 folder, diffusers folder, or file of one network (.pt, .pth, .safetensors);
        with --to-official, or to store it again as another --dtype, a checkpoint folder.
      output: checkpoint folder to make.
      wan: folder with the networks that a file of one network lacks, and the tokenizer.
      section: branch of a file, as in generator_ema or model.diffusion_model; by default the one
        that holds a network, or generator where several do.
      variant: which files of a folder, as in fp16; by default those without one.
      lora: LoRA file or peft folder to merge into the transformer, and how much of it (1); may be
        given several times.
      lora_alpha: alpha of the LoRA where the file tells none; by default its rank.
      keep_lora: store the LoRAs beside the transformer instead of merging them.
      dtype: dtype to store, by default what the files have.
      to_official: file to write instead of a checkpoint folder (.pt, .pth or .safetensors).
      network: network that --to-official writes.
    """

    source: Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    output: Annotated[pathlib.Path | None, tyro.conf.arg(aliases=("-o",), metavar="FOLDER")] = None
    wan: _Folder = None
    section: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    variant: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    lora: LoRAFiles = ()
    lora_alpha: Annotated[float | None, tyro.conf.arg(metavar="ALPHA")] = None
    keep_lora: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    dtype: Literal["bfloat16", "float32"] | None = None
    to_official: _File = None
    network: Literal["dit", "vae", "text"] = "dit"


def convert(
    args: Annotated[Convert, tyro.conf.arg(name="")],
    *,
    console: tyro.conf.Suppress[Console | None] = None,
) -> None:
    """Convert official weights into one checkpoint folder, or a checkpoint folder back.

    The file's tensors must be exactly the network's; otherwise nothing is written.

    Args:
      args: what to convert, and into what.
      console: where to print, the terminal by default.

    Raises:
      ValueError: options, files or weights that do not fit together.
      OSError: a path that is not there, or is there already.
    """
    console = console or Console()
    _check_options(args)
    if args.to_official is not None:
        export_official(args.source, args.to_official, network=args.network, dtype=args.dtype)
        console.print(Text(f"Wrote {args.network} to {args.to_official}."))
    elif args.output is not None and args.dtype is not None and is_checkpoint(args.source):
        if args.wan or args.section or args.variant or args.lora:
            raise ValueError(
                f"{args.source} is whole: leave out --wan, --section, --variant and --lora."
            )
        cast_checkpoint(args.source, args.output, args.dtype)
        console.print(Text(f"Wrote {args.source} to {args.output} as {args.dtype}."))
    elif args.output is not None:
        _import(args, args.output, console)


def render_reports(reports: Mapping[str, MatchReport], source: Source) -> Table:
    """Reports as text: a few lines a network, then every key that does not fit."""
    table = Table.grid(padding=(0, 2))
    for name, report in reports.items():
        part = source.networks[name]
        table.add_row(Text(name, "bold"), "", Text(f"{part.kind}, {', '.join(part.files)}"))
        # What was guessed must not pass for what the file says.
        for note in part.notes:
            table.add_row("", Text("note", "dim"), Text(note, "yellow"))
        for label, line, style in _lines(report):
            table.add_row("", Text(label, "dim"), Text(line, style))
    return table


def _import(args: Convert, output: pathlib.Path, console: Console) -> None:
    # Before the source is opened: matching the tensors of a large model takes a while.
    if output.exists():
        raise FileExistsError(f"{output} exists already; remove it or choose another place.")
    source = find_source(args.source, base=args.wan, section=args.section, variant=args.variant)
    # Before the report: what is counted is what will be stored.
    if args.lora:
        requests = [LoRARequest.parse(text) for text in args.lora]
        source = with_loras(source, requests, alpha=args.lora_alpha, keep=args.keep_lora)
    refuse_misfits(source)
    # Names and shapes alone are read for it: what does not fit shows before any weight is read.
    console.print(render_reports(report_on(source, args.dtype), source))
    with console.status("Converting") as status:
        import_source(
            source,
            output,
            dtype=args.dtype,
            started=lambda name: status.update(f"Converting {name}"),
        )
    console.print(Text(f"Wrote {', '.join(source.networks)} to {output}."))
    # A checkpoint of one network is useful for training; filming with it would fail later.
    lacking = [name for name in ("dit", "vae", "text") if name not in source.networks]
    if lacking:
        console.print(Text(f"It has no {' and no '.join(lacking)}; films need all three: --wan."))


def _check_options(args: Convert) -> None:
    """Raises: ValueError: options that do not belong together."""
    if (args.output is None) == (args.to_official is None):
        raise ValueError("Give either --output FOLDER or --to-official FILE, and not both.")
    given = args.wan or args.section or args.variant or args.lora
    if args.to_official is not None and given:
        raise ValueError(
            "--to-official takes a checkpoint folder as it is, without --wan, --section, "
            "--variant or --lora; convert with those into --output first."
        )
    if not args.lora and (args.keep_lora or args.lora_alpha is not None):
        raise ValueError("--keep-lora and --lora-alpha say what to do with --lora; give that too.")
    if args.lora_alpha is not None and (len(args.lora) > 1 or not args.lora_alpha > 0):
        raise ValueError(
            f"--lora-alpha {args.lora_alpha:g} is the alpha of one --lora, a number above 0; "
            "give FILE:STRENGTH to weigh several."
        )


def _lines(report: MatchReport) -> Iterator[tuple[str, str, str]]:
    """Label, text and style of each line about a network."""
    yield "keys", f"{report.used} used, which become {report.leaves} arrays", ""
    for kind, count in report.dtypes.items():
        yield "dtype", f"{count} x {kind}", ""
    for kind, count in report.layouts.items():
        yield "layout", f"{count} x {kind}", ""
    for label, keys in (
        ("missing", report.missing),
        ("unexpected", report.unexpected),
        ("shape", report.misshaped),
        ("no float", report.not_floats),
    ):
        # All of them: the pattern in the names tells a wrong file from a wrong prefix.
        for key in keys:
            yield label, str(key), "red"
    if report.whole:
        yield "", "nothing is missing, unexpected or of another shape", "green"
