"""`shotstream convert`: official weights into a checkpoint folder, and a checkpoint back."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Annotated, Literal

import rich.box
import tyro
from rich.console import Console
from rich.table import Table

from shotstream_jax.checkpoints.official import export_official, import_source, report_on
from shotstream_jax.checkpoints.report import Report
from shotstream_jax.checkpoints.sources import Source, find_source, with_lora


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert official weights into one checkpoint folder, or a checkpoint folder back.

    Every tensor must have its place and every place its tensor; otherwise nothing is written.

    Attributes:
      source: Wan2.1 folder, diffusers folder, or file of one network (.pt, .pth, .safetensors);
        with --to-official a checkpoint folder.
      output: checkpoint folder to make.
      wan: folder that has what a file of one network lacks: autoencoder, text encoder, tokenizer.
      section: branch of a .pt file, such as generator (the default where there is one) or
        generator_ema.
      lora: LoRA file to merge into the transformer.
      lora_alpha: alpha of the LoRA; files do not say, the default is its rank.
      keep_lora: store the LoRA beside the transformer instead of merging it.
      dtype: dtype to store; the default is what the files have.
      to_official: file to write instead of a checkpoint folder (.pt, .pth or .safetensors).
      network: network that --to-official writes.
    """

    source: tyro.conf.Positional[pathlib.Path]
    output: Annotated[pathlib.Path | None, tyro.conf.arg(aliases=("-o",))] = None
    wan: pathlib.Path | None = None
    section: str | None = None
    lora: pathlib.Path | None = None
    lora_alpha: float | None = None
    keep_lora: bool = False
    dtype: Literal["bfloat16", "float32"] | None = None
    to_official: pathlib.Path | None = None
    network: Literal["dit", "vae", "text"] = "dit"

    def __post_init__(self) -> None:
        """Raises: ValueError: options that do not belong together."""
        if (self.output is None) == (self.to_official is None):
            raise ValueError("Give either --output DIR or --to-official FILE, and not both.")
        if self.to_official is not None and (self.wan or self.section or self.lora):
            raise ValueError(
                "--to-official takes a checkpoint folder as it is, without --wan, --section or "
                "--lora; convert with those into --output first."
            )
        if self.lora is None and (self.keep_lora or self.lora_alpha is not None):
            raise ValueError("--keep-lora and --lora-alpha say what to do with --lora; give that.")


def convert(args: Convert, console: Console | None = None) -> None:
    """Run the conversion, and print what was found before anything is written.

    Raises:
      ValueError: options, files or weights that do not fit together.
      OSError: a path that is not there, or is there already.
    """
    console = console or Console()
    if args.to_official is not None:
        export_official(args.source, args.to_official, network=args.network, dtype=args.dtype)
        console.print(f"Wrote {args.network} to {args.to_official}.")
        return
    if args.output is None or args.output.exists():
        raise FileExistsError(f"{args.output} exists already; remove it or choose another place.")
    source = find_source(args.source, base=args.wan, section=args.section)
    if args.lora is not None:
        source = with_lora(source, args.lora, alpha=args.lora_alpha, keep=args.keep_lora)
    _show(report_on(source, args.dtype), source, console)
    with console.status("Converting") as status:
        import_source(
            source,
            args.output,
            dtype=args.dtype,
            started=lambda name: status.update(f"Converting {name}"),
        )
    console.print(f"Wrote {', '.join(source.parts)} to {args.output}.")
    lacking = [name for name in ("vae", "text") if name not in source.parts]
    if lacking:
        console.print(f"It has no {' and no '.join(lacking)}; films need both: add --wan FOLDER.")


def _show(reports: Mapping[str, Report], source: Source, console: Console) -> None:
    """Print one row a network, then every key that does not fit."""
    table = Table(box=rich.box.SIMPLE)
    for column in ("network", "format", "keys used", "arrays", "laid out anew", "dtypes"):
        table.add_column(column)
    for column in ("missing", "unexpected", "other shape"):
        table.add_column(column, justify="right")
    for name, report in reports.items():
        table.add_row(
            name,
            source.parts[name].kind,
            str(report.used),
            str(report.leaves),
            _lines(report.layouts),
            _lines(report.dtypes),
            *(str(len(kind)) for kind in (report.missing, report.unexpected, report.misshaped)),
        )
    console.print(table)
    for name, report in reports.items():
        for kind, keys in (("missing", report.missing), ("unexpected", report.unexpected)):
            for key in keys:
                console.print(f"{name}: {kind} {key}", highlight=False, markup=False)
        for key in report.misshaped:
            console.print(f"{name}: other shape {key}", highlight=False, markup=False)


def _lines(counts: Mapping[str, int]) -> str:
    # Square brackets are markup to rich, and shapes are full of them.
    return "\n".join(f"{count} x {kind}" for kind, count in counts.items()).replace("[", r"\[")
