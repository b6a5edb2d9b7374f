"""`shotstream bench`: how fast this machine films, measured, with everything that a film takes.

    shotstream bench --preset tiny --json             a film, its parts, memory, compilation
    shotstream bench --preset wan-1.3b --shots 3      the same at full size, with random weights
    shotstream bench --kernels                        attention and decoding by every way to do them
    shotstream bench --gpu-report -o report           all that a GPU has to answer, as JSON files

Exit status (exit_codes.py): `NEGATIVE` if a part of a report failed or fast paths disagree.
"""

import dataclasses
import json
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import Mesh, Sharding
from rich.console import Console
from rich.text import Text

from shotstream_jax.cli.bench_options import FULL, SMALL, BenchOptions
from shotstream_jax.cli.bench_tables import film_table, kernels_table
from shotstream_jax.cli.exit_codes import ExitCode
from shotstream_jax.cli.options import open_named
from shotstream_jax.cli.plan import parse_size
from shotstream_jax.directing.video import Mp4Writer
from shotstream_jax.files import atomic_file
from shotstream_jax.model import find_model
from shotstream_jax.model_config import ModelConfig
from shotstream_jax.models.compute import default_compute
from shotstream_jax.perf.bench.gpu_report import gpu_report
from shotstream_jax.perf.bench.kernels import kernel_rates
from shotstream_jax.perf.bench.provenance import provenance
from shotstream_jax.perf.bench.run import BenchSettings, measure_film
from shotstream_jax.perf.bench.split import EncodeVideo
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.perf.random_networks import random_networks
from shotstream_jax.presets import PRESETS
from shotstream_jax.rollout.approximate import Approximation
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.sharding import split_devices
from shotstream_jax.story import Defaults

_SMALL_PATCHES = (3, 5)
"""Patches down and across in the film of a small model: few, and of two primes, so that rows and
columns cannot be mistaken for one another."""


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
    # Progress goes to stderr: standard output holds the result alone, for a pipe.
    console = Console(stderr=True, quiet=args.json)
    if args.gpu_report:
        return _report(args, console)
    found = _kernels(args) if args.kernels else _film(args)
    text = json.dumps(found, indent=2) + "\n"
    if args.output is not None:
        with atomic_file(args.output) as partial:
            partial.write_text(text, encoding="utf-8")
    if args.json:
        sys.stdout.write(text)
    else:
        Console().print(kernels_table(found) if args.kernels else film_table(found))
    return ExitCode.DONE


def _film(args: BenchOptions) -> dict[str, Any]:
    settings = BenchSettings(shots=args.shots, warmup=args.warmup)
    networks, shape, model = _open(args)
    return {
        "kind": "film",
        **_about(),
        "model": model,
        **measure_film(networks, shape, settings, mp4_encoder(shape, settings.fps)),
    }


def _kernels(args: BenchOptions) -> dict[str, Any]:
    name = SMALL if args.small else FULL
    mesh, _ = _places(args, PRESETS[name])
    shape = _shape(args, PRESETS[name], mesh, small=args.small)
    return {"kind": "kernels", **_about(), "shapes_of": name, "kernels": kernel_rates(shape)}


def _report(args: BenchOptions, console: Console) -> int:
    platform = jax.default_backend()
    # A GPU's time is dear: what would fail there after an hour is to fail in a rehearsal on a CPU.
    if platform != "gpu" and not args.rehearse:
        raise ValueError(
            f"A GPU's report needs a GPU, this machine has a {platform}; "
            "--rehearse runs all of it at tiny sizes."
        )
    name = SMALL if args.rehearse else FULL
    mesh, _ = _places(args, PRESETS[name])
    shape = _shape(args, PRESETS[name], mesh, small=args.rehearse)
    settings = BenchSettings(shots=args.shots, warmup=args.warmup)
    whole = gpu_report(
        shape,
        mesh,
        args.output or pathlib.Path(),
        settings=settings,
        encode_video=mp4_encoder(shape, settings.fps),
        about={**_about(), "model": _model(name, "random", shape, mesh)},
        rehearsed=args.rehearse,
        tell=lambda line: console.print(Text(line), soft_wrap=True),
    )
    return ExitCode.DONE if whole else ExitCode.NEGATIVE


def _open(args: BenchOptions) -> tuple[Networks, FilmShape, dict[str, Any]]:
    """The networks to film with, their shape, and what to say of them."""
    name = str(args.checkpoint or args.preset)
    small = args.checkpoint is None and args.preset == SMALL
    if args.random_weights or (args.checkpoint is None and not small):
        # Of a checkpoint the sizes are real, though its weights are not read.
        has_weights = small or args.checkpoint is not None
        config = find_model(name).config if has_weights else PRESETS[name]
        mesh, apart = _places(args, config)
        shape = _shape(args, config, mesh, small=small)
        networks = random_networks(shape, mesh, text_on_host=args.text_on_host, vae_apart=apart)
        return networks, shape, _model(name, "random", shape, mesh)
    # Its shape first: a film that does not divide is refused before any weights are read.
    config = find_model(name).config
    mesh, _ = _places(args, config)
    shape = _shape(args, config, mesh, small=small)
    model = open_named(
        name,
        args.dtype,
        args.devices,
        text_on_host=args.text_on_host,
        vae_apart=args.vae_apart,
        approximate=args.approximate,
    )
    # Merged passes are no option of `open_model`: they stay off until an accelerator shows a gain.
    networks = dataclasses.replace(
        model.networks, compute=shape.compute, merged_passes=shape.merged_passes
    )
    return networks, shape, _model(name, model.weights, shape, mesh)


def _places(args: BenchOptions, config: ModelConfig) -> tuple[Mesh, Sharding | None]:
    """The devices that film, and that of the autoencoder if it has one of its own."""
    devices = jax.local_devices()
    if args.devices is not None and not 1 <= args.devices <= len(devices):
        raise ValueError(f"{args.devices} devices were asked for and there are {len(devices)}.")
    return split_devices(config.dit.heads, devices[: args.devices], vae_apart=args.vae_apart)


def _shape(args: BenchOptions, config: ModelConfig, mesh: Mesh, *, small: bool) -> FilmShape:
    platform = mesh.devices.flat[0].platform
    dtype = None if args.dtype == "auto" else getattr(jnp, args.dtype)
    return FilmShape(
        config=config,
        compute=default_compute(config.dit.head_dim, dtype, platform, mesh),
        size=parse_size(args.size) if args.size else _usual_size(config, small=small),
        chunks=_chunks(args.frames, config),
        merged_passes=args.merged,
        approximation=Approximation.named(args.approximate),
    )


def _usual_size(config: ModelConfig, *, small: bool) -> tuple[int, int]:
    if not small:
        # 480 x 832, at which the released weights were trained; numbers of other sizes do not
        # compare.
        return Defaults().size
    units = (config.vae.spatial_stride * patch for patch in config.dit.patch)
    height, width = (unit * count for unit, count in zip(units, _SMALL_PATCHES, strict=True))
    return height, width


def _chunks(frames: int | None, config: ModelConfig) -> int:
    """Chunks that show `frames` video frames after a cut."""
    window, vae = config.rollout.window, config.vae
    if frames is None:
        # A shot that fills the window: 7 chunks or 81 frames of the released student.
        return window.local // window.chunk
    chunks = max(1, round((frames - 1 + vae.temporal_stride) / vae.temporal_stride / window.chunk))
    # The nearest whole number of chunks, so that a refusal can offer a length.
    possible = vae.video_frames(chunks * window.chunk)
    if possible != frames:
        raise ValueError(f"A shot of {frames} frames is not whole chunks; try {possible}.")
    return chunks


def _model(name: str, weights: str, shape: FilmShape, mesh: Mesh) -> dict[str, Any]:
    return {
        "name": name,
        "weights": weights,
        "dtype": shape.compute.dtype.__name__,
        "attention": shape.compute.attention,
        "merged": shape.merged_passes,
        "approximate": list(shape.approximation.names),
        "devices": mesh.size,
    }


def _about() -> dict[str, Any]:
    return provenance(["shotstream", *sys.argv[1:]])


def mp4_encoder(shape: FilmShape, fps: int) -> EncodeVideo:
    """Writes the chunks of a shot to a file that is removed again."""

    def encode(chunks: Sequence[np.ndarray]) -> None:
        # To a file, not to memory: what `generate` waits for includes the file system.
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "shot.mp4")
            with Mp4Writer(path, fps=fps, size=shape.size) as film:
                for frames in chunks:
                    film.write(frames)

    return encode
