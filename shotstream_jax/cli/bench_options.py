"""What `shotstream bench` may be asked."""

import dataclasses
import pathlib
from typing import Annotated, Literal

import tyro

from shotstream_jax.cli.options import Approximate, Dtype

# Kernels are asked about at the released size; a rehearsal of that must run on any CPU.
FULL, SMALL = "wan-1.3b", "tiny"
"""What kernels and reports are measured for, and rehearsed with."""


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
        # Refused, not ignored: a number on record must not name an option that did nothing.
        for name, other in (("small", "kernels"), ("rehearse", "gpu_report")):
            if getattr(self, name) and not getattr(self, other):
                raise ValueError(f"--{name} belongs to --{other.replace('_', '-')}; give both.")
        for name in ("merged", "vae_apart", "approximate"):
            if getattr(self, name) and (self.kernels or self.gpu_report):
                raise ValueError(f"--{name.replace('_', '-')} is for a film; give it alone.")
        if self.gpu_report and self.output is None:
            raise ValueError("--gpu-report writes several files; give it a folder with -o.")
