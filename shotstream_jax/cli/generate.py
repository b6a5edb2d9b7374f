"""`shotstream generate`: a story file in, a film out, and nothing lost on the way."""

import dataclasses
import importlib.metadata
import json
import pathlib
import sys
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from shotstream_jax.cli.options import Approximate, Dtype, open_named
from shotstream_jax.directing import filming
from shotstream_jax.directing.reel import CONTACT, FILM, MANIFEST, Reel, clear_reel, refuse_folder
from shotstream_jax.model import Model
from shotstream_jax.story import Story, full_captions, load_story


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate:
    """What to film, with what, and into which folder.

    Attributes:
      story: story file (.yaml, .json), or the reference's .csv (`stories.csv#2` for one row).
      output: folder for the film, new or empty.
      checkpoint: checkpoint folder; without it the preset is used.
      preset: a model that comes with the package.
      dtype: format of the transformer; by default bfloat16 on accelerators, float32 on a CPU.
      devices: devices to split the heads over; by default as many as divide them.
      text_on_host: keep the text encoder in host memory.
      vae_apart: give the last device to the autoencoder alone; it decodes while the others film.
      approximate: film faster or in less memory, not quite the same: no-clean-pass, latent-context,
        int8-cache, int8-weights.
      resume: go on after the last finished shot.
      overwrite: film anew where a film was made before; other files in the folder are refused.
      json: print the manifest as JSON when done, and nothing else.
    """

    story: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORY")]
    output: Annotated[pathlib.Path, tyro.conf.arg(aliases=("-o",), metavar="FOLDER")]
    checkpoint: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    preset: Literal["tiny"] = "tiny"
    dtype: Dtype = "auto"
    devices: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    text_on_host: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    vae_apart: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    approximate: Approximate = ()
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def generate(args: Annotated[Generate, tyro.conf.arg(name="")]) -> None:
    """Film a story: each shot's video is on disk when it ends, and the film when all are there.

    Args:
      args: what to film, with what, and into which folder.

    Raises:
      ValueError: a story, model or folder that will not do.
      OSError: no room, or no permission.
    """
    console = Console(stderr=True, quiet=args.json)
    story = load_story(args.story)
    if args.overwrite:
        clear_reel(args.output)
    refuse_folder(args.output, resume=args.resume)
    model = open_named(
        args.checkpoint or args.preset,
        args.dtype,
        args.devices,
        text_on_host=args.text_on_host,
        vae_apart=args.vae_apart,
        approximate=args.approximate,
    )
    _check_captions(story, model)
    badge = model.badge
    console.print(Text(f"{story.title}: {_summary(story, model)}"))
    if model.networks.approximate:
        console.print(Text(f"Approximate: {', '.join(model.networks.approximate)}.", "yellow"))
    if model.weights == "random":
        console.print(Text("These weights are random: expect moving noise, not a story.", "yellow"))
    with _Display(console) as display:
        reel = filming.film_story(
            model.networks,
            story,
            args.output,
            digest=model.digest,
            badge=badge,
            facts=_facts(args, model),
            resume=args.resume,
            watch=display.watch,
        )
    _say_goodbye(reel, console, as_json=args.json)


def _check_captions(story: Story, model: Model) -> None:
    limit = model.config.dit.text_tokens
    for shot, caption in zip(story.resolved().shots, full_captions(story), strict=True):
        count = model.count_tokens(caption)
        if count > limit:
            raise ValueError(
                f"Shot {shot.id}: its caption has {count} tokens with the global caption, and "
                f"{limit} fit; take out {count - limit} (`shotstream check` counts them)."
            )


def _summary(story: Story, model: Model) -> str:
    height, width = story.defaults.size
    device = next(iter(model.networks.mesh.devices.flat)).device_kind if model.networks.mesh else ""
    shots = len(story.shots)
    return (
        f"{shots} shot{'s' if shots > 1 else ''}, {height} x {width}, {story.defaults.fps} fps; "
        f"model {model.name} ({model.weights} weights) on {device}."
    )


def _facts(args: Generate, model: Model) -> dict[str, object]:
    return {
        "shotstream_jax": importlib.metadata.version("shotstream-jax"),
        "story_file": args.story,
        "model": model.name,
        "weights": model.weights,
        "config_digest": model.config.digest(),
        "dtype": model.networks.compute.dtype.__name__,
        "approximate": list(model.networks.approximate),
        "devices": len(model.networks.mesh.devices.flat) if model.networks.mesh else 1,
    }


def _say_goodbye(reel: Reel, console: Console, *, as_json: bool) -> None:
    manifest = json.loads((reel.folder / MANIFEST).read_text(encoding="utf-8"))
    if as_json:
        sys.stdout.write(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        return
    timings = manifest["timings"]
    console.print(
        f"{reel.folder / FILM} and {CONTACT} are ready: "
        f"{timings['frames']} frames in {timings['total']:.1f} s.",
        soft_wrap=True,
        highlight=False,
    )


class _Display:
    """One line that moves: shot, chunk, rate and time left; a line for every finished shot."""

    def __init__(self, console: Console):
        self._console, self._frames, self._seconds = console, 0, 0.0
        columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}")]
        self._bar = Progress(*columns, BarColumn(), _Rate(), console=console, transient=True)
        self._task = self._bar.add_task("Compiling (kept for next time)", total=None)

    def __enter__(self) -> "_Display":
        if self._console.is_terminal:
            self._bar.start()
        else:
            self._console.print("Compiling (kept for next time) ...")
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def watch(self, progress: filming.Progress) -> None:
        """Redraw after a chunk."""
        plan, chunk = progress.piece.plan, progress.piece.chunk
        if progress.chunks_done == 1:
            self._console.print(Text(f"First frames after {progress.seconds:.1f} s."))
        self._bar.update(
            self._task,
            description=f"Shot {plan.index + 1}/{progress.shots}, chunk {chunk + 1}/{plan.chunks}",
            total=progress.chunks_done + progress.chunks_left,
            completed=progress.chunks_done,
            fps=progress.fps,
            seconds_left=progress.seconds_left,
        )
        if progress.piece.ends_shot:
            frames, seconds = progress.frames - self._frames, progress.seconds - self._seconds
            self._frames, self._seconds = progress.frames, progress.seconds
            self._console.print(
                f"Shot {plan.index + 1} of {progress.shots}: {frames} frames in {seconds:.1f} s."
            )


class _Rate(ProgressColumn):
    """Delivered frames per second and time left, once they are known."""

    def render(self, task: Task) -> Text:
        """Draw the column."""
        fps, left = task.fields.get("fps"), task.fields.get("seconds_left")
        if fps is None or left is None:
            return Text("")
        minutes, seconds = divmod(round(left), 60)
        return Text(f"{fps:.1f} frames/s, {minutes}:{seconds:02d} left")
