"""`shotstream bench`: how fast this machine films, measured, with everything that a film takes.

    shotstream bench --preset tiny --json             a film, its parts, memory, compilation
    shotstream bench --preset wan-1.3b --shots 3      the same at full size, with random weights
    shotstream bench --kernels                        attention and decoding by every way to do them
    shotstream bench --gpu-report -o report           all that a GPU has to answer, as JSON files

Exit status: 0 measured, 1 if a part of a report failed or fast paths disagree, 2 bad input.
"""

import dataclasses
import json
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import rich.box
import tyro
from jax.sharding import Mesh, Sharding
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from shotstream_jax.atomic import replacing
from shotstream_jax.cli.options import Approximate, Dtype, open_named
from shotstream_jax.cli.plan import parse_size
from shotstream_jax.config import PRESETS, ModelConfig
from shotstream_jax.directing.video import Mp4Writer
from shotstream_jax.model import find_model
from shotstream_jax.models.compute import default_compute
from shotstream_jax.perf.bench import BenchSettings
from shotstream_jax.perf.bench import bench as measure
from shotstream_jax.perf.gpu_report import gpu_report
from shotstream_jax.perf.kernels import kernel_rates
from shotstream_jax.perf.programs import FilmSizes
from shotstream_jax.perf.provenance import provenance
from shotstream_jax.perf.random_networks import random_networks
from shotstream_jax.perf.split import EncodeVideo
from shotstream_jax.rollout.networks import Networks, approximated
from shotstream_jax.sharding import split_devices
from shotstream_jax.story import Defaults

FULL, SMALL = "wan-1.3b", "tiny"
"""What kernels and reports are measured for, and rehearsed with."""

_SMALL_PATCHES = (3, 5)
"""Patches of the transformer, down and across, in the film of a small model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What to measure, and how much of it.

    Attributes:
      preset: a model; one that comes without weights gets random ones.
      checkpoint: checkpoint folder, in place of the preset.
      random_weights: random weights in place of real ones.
      shots: of the film that is measured, all cuts.
      size: height and width of the film; by default 480x832, a few patches for tiny.
      frames: video frames of a shot; by default as many as the network looks back over.
      warmup: films that are not measured, after those that compile.
      dtype: format of the transformer; by default bfloat16 on accelerators, float32 on a CPU.
      devices: devices to split the heads over; by default as many as divide them.
      merged: let clean and context passes share a pass with the step that follows; exact.
      text_on_host: keep the text encoder in host memory.
      vae_apart: give the last device to the autoencoder alone; it decodes while the others film.
      approximate: film faster or in less memory, not quite the same: no-clean-pass, latent-context,
        int8-cache, int8-weights.
      kernels: measure attention and decoding alone, at the shapes of wan-1.3b.
      small: with --kernels, at the shapes of tiny.
      gpu_report: measure all that a GPU has to answer, of wan-1.3b, into the output folder.
      rehearse: with --gpu-report, run all of it at the sizes of tiny, on any device.
      output: JSON file to write; with --gpu-report a folder for several.
      json: print one JSON object.
    """

    preset: Literal["tiny", "wan-1.3b", "wan-14b"] = SMALL
    checkpoint: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    random_weights: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    shots: Annotated[int, tyro.conf.arg(metavar="N")] = 3
    size: Annotated[str, tyro.conf.arg(metavar="HxW")] = ""
    frames: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    warmup: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    dtype: Dtype = "auto"
    devices: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    merged: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    text_on_host: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    vae_apart: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    approximate: Approximate = ()
    kernels: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    small: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    gpu_report: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    rehearse: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    output: Annotated[
        pathlib.Path | None, tyro.conf.arg(aliases=("-o",), metavar="FILE|FOLDER")
    ] = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False

    def __post_init__(self) -> None:
        """Raises: ValueError: options that do not go together."""
        if self.kernels and self.gpu_report:
            raise ValueError("--kernels is part of --gpu-report; give one of them.")
        for name, other in (("small", "kernels"), ("rehearse", "gpu_report")):
            if getattr(self, name) and not getattr(self, other):
                raise ValueError(f"--{name} belongs to --{other.replace('_', '-')}; give both.")
        for name in ("merged", "vae_apart", "approximate"):
            if getattr(self, name) and (self.kernels or self.gpu_report):
                raise ValueError(f"--{name.replace('_', '-')} is for a film; give it alone.")
        if self.gpu_report and self.output is None:
            raise ValueError("--gpu-report writes several files; give it a folder with -o.")


def bench(args: Annotated[BenchOptions, tyro.conf.arg(name="")]) -> int:
    """Measure how fast this machine films.

    Args:
      args: what to measure, and how much of it.

    Returns:
      Exit status.

    Raises:
      ValueError: a model, size or length that will not do, or no GPU for a GPU's report.
      OSError: files that cannot be read or written.
    """
    console = Console(stderr=True, quiet=args.json)
    if args.gpu_report:
        return _report(args, console)
    found = _kernels(args) if args.kernels else _film(args)
    text = json.dumps(found, indent=2) + "\n"
    if args.output is not None:
        with replacing(args.output) as partial:
            partial.write_text(text, encoding="utf-8")
    if args.json:
        sys.stdout.write(text)
    else:
        Console().print(_rendered_kernels(found) if args.kernels else _rendered_film(found))
    return 0


def _film(args: BenchOptions) -> dict[str, Any]:
    settings = BenchSettings(shots=args.shots, warmup=args.warmup)
    networks, sizes, model = _open(args)
    return {
        "kind": "film",
        **_about(),
        "model": model,
        **measure(networks, sizes, settings, mp4_encoder(sizes, settings.fps)),
    }


def _kernels(args: BenchOptions) -> dict[str, Any]:
    name = SMALL if args.small else FULL
    mesh, _ = _places(args, PRESETS[name])
    sizes = _sizes(args, PRESETS[name], mesh, small=args.small)
    return {"kind": "kernels", **_about(), "shapes_of": name, "kernels": kernel_rates(sizes)}


def _report(args: BenchOptions, console: Console) -> int:
    platform = jax.default_backend()
    if platform != "gpu" and not args.rehearse:
        raise ValueError(
            f"A GPU's report needs a GPU, this machine has a {platform}; "
            "--rehearse runs all of it at tiny sizes."
        )
    name = SMALL if args.rehearse else FULL
    mesh, _ = _places(args, PRESETS[name])
    sizes = _sizes(args, PRESETS[name], mesh, small=args.rehearse)
    settings = BenchSettings(shots=args.shots, warmup=args.warmup)
    whole = gpu_report(
        sizes,
        mesh,
        args.output or pathlib.Path(),
        settings=settings,
        encode_video=mp4_encoder(sizes, settings.fps),
        about={**_about(), "model": _model(name, "random", sizes, mesh)},
        rehearsed=args.rehearse,
        tell=lambda line: console.print(line, soft_wrap=True, highlight=False),
    )
    return 0 if whole else 1


def _open(args: BenchOptions) -> tuple[Networks, FilmSizes, dict[str, Any]]:
    """The networks to film with, their sizes, and what to say of them."""
    name = str(args.checkpoint or args.preset)
    small = args.checkpoint is None and args.preset == SMALL
    if args.random_weights or (args.checkpoint is None and not small):
        has_weights = small or args.checkpoint is not None
        config = find_model(name).config if has_weights else PRESETS[name]
        mesh, apart = _places(args, config)
        sizes = _sizes(args, config, mesh, small=small)
        networks = random_networks(sizes, mesh, text_on_host=args.text_on_host, vae_apart=apart)
        networks = approximated(networks, args.approximate)
        return networks, sizes, _model(name, "random", sizes, mesh, networks.approximate)
    # Sizes first: a film that does not divide is refused before any weights are read.
    config = find_model(name).config
    mesh, _ = _places(args, config)
    sizes = _sizes(args, config, mesh, small=small)
    model = open_named(
        name,
        args.dtype,
        args.devices,
        text_on_host=args.text_on_host,
        vae_apart=args.vae_apart,
        approximate=args.approximate,
    )
    networks = dataclasses.replace(model.networks, compute=sizes.compute)
    return networks, sizes, _model(name, model.weights, sizes, mesh, networks.approximate)


def _places(args: BenchOptions, config: ModelConfig) -> tuple[Mesh, Sharding | None]:
    """The devices that film, and that of the autoencoder if it has one of its own."""
    devices = jax.local_devices()
    if args.devices is not None and not 1 <= args.devices <= len(devices):
        raise ValueError(f"{args.devices} devices were asked for and there are {len(devices)}.")
    return split_devices(config.dit.heads, devices[: args.devices], vae_apart=args.vae_apart)


def _sizes(args: BenchOptions, config: ModelConfig, mesh: Mesh, *, small: bool) -> FilmSizes:
    platform = mesh.devices.flat[0].platform
    dtype = None if args.dtype == "auto" else getattr(jnp, args.dtype)
    return FilmSizes(
        dit=config.dit,
        vae=config.vae,
        text=config.text,
        rollout=config.rollout,
        compute=dataclasses.replace(
            default_compute(config.dit.head_dim, dtype, platform, mesh),
            merged=args.merged,
        ),
        size=parse_size(args.size) if args.size else _usual_size(config, small=small),
        chunks=_chunks(args.frames, config),
    )


def _usual_size(config: ModelConfig, *, small: bool) -> tuple[int, int]:
    if not small:
        return Defaults().size
    units = (config.vae.spatial_stride * patch for patch in config.dit.patch)
    height, width = (unit * count for unit, count in zip(units, _SMALL_PATCHES, strict=True))
    return height, width


def _chunks(frames: int | None, config: ModelConfig) -> int:
    """Chunks that show `frames` video frames after a cut."""
    window, vae = config.rollout.window, config.vae
    if frames is None:
        return window.local // window.chunk
    chunks = max(1, round((frames - 1 + vae.temporal_stride) / vae.temporal_stride / window.chunk))
    possible = vae.video_frames(chunks * window.chunk)
    if possible != frames:
        raise ValueError(f"A shot of {frames} frames is not whole chunks; try {possible}.")
    return chunks


def _model(
    name: str, weights: str, sizes: FilmSizes, mesh: Mesh, approximate: Sequence[str] = ()
) -> dict[str, Any]:
    return {
        "name": name,
        "weights": weights,
        "dtype": sizes.compute.dtype.__name__,
        "attention": sizes.compute.attention,
        "merged": sizes.compute.merged,
        "approximate": list(approximate),
        "devices": mesh.size,
    }


def _about() -> dict[str, Any]:
    return provenance(["shotstream", *sys.argv[1:]])


def mp4_encoder(sizes: FilmSizes, fps: int) -> EncodeVideo:
    """Writes the chunks of a shot to a file that nobody keeps."""

    def encode(chunks: Sequence[np.ndarray]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "shot.mp4")
            with Mp4Writer(path, fps=fps, size=sizes.size) as film:
                for frames in chunks:
                    film.write(frames)

    return encode


def _rendered_film(found: Mapping[str, Any]) -> Group:
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
        rate = split["achieved"].get(name, {})
        table.add_row(
            name,
            str(part["calls"]),
            f"{1e3 * part['seconds_per_call']:.2f}",
            f"{part['seconds']:.3f}",
            _rate(rate.get("tflops_per_second"), ".3g"),
            _rate(rate.get("share_of_peak"), ".1%"),
        )
    table.add_row("other", "", "", f"{split['other_seconds']:.3f}", "", "")
    return table


def _rendered_kernels(found: Mapping[str, Any]) -> Group:
    title = f"Kernels of {found['shapes_of']} on {found['device']}"
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, title=title)
    for name in ("kernel", "by", "keys", "keys known"):
        table.add_column(name, no_wrap=True)
    for name in ("ms", "TFLOP/s", "of peak"):
        table.add_column(name, justify="right", no_wrap=True)
    missing = {}
    for row in found["kernels"]:
        by = row.get("backend") or row["lowering"]
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
