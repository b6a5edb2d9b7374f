"""`shotstream generate`: a story file in, a film out, and nothing lost on the way."""

import dataclasses
import functools
import importlib.metadata
import json
import pathlib
import sys
from typing import Annotated, Literal

import jax
import tyro
from rich.console import Console
from rich.text import Text

from shotstream_jax.cli.options import (
    Approximate,
    Dtype,
    LoRAFiles,
    open_named,
    read_story_for,
)
from shotstream_jax.cli.progress_bar import ProgressBar, pace
from shotstream_jax.data.closed_vocabulary import unknown_words
from shotstream_jax.directing import filming
from shotstream_jax.directing.cameras import MakeCamera, student_camera, teacher_camera
from shotstream_jax.directing.folder_contents import CONTACT, FILM, MANIFEST, check_folder
from shotstream_jax.directing.timings import FilmingProgress
from shotstream_jax.files import local_path
from shotstream_jax.model import Model, find_model
from shotstream_jax.model_config import ModelConfig
from shotstream_jax.perf.plan.fit import device_memory, fit_problem
from shotstream_jax.rollout.teacher import SampleConfig
from shotstream_jax.story import Story, StoryError, StoryFile

_COMPILING = "Compiling (kept for next time)"


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
      lora: LoRA file or peft folder to add to the transformer for this film, and how much of it
        (1); may be given several times.
      role: what the transformer is: the causal student in few steps, or the bidirectional teacher
        in many.
      steps: of the teacher, 50 if not given.
      guidance: of the teacher, 6 if not given; 1 is none.
      history_guidance: guide the teacher by its context too, not by captions alone.
      solver: of the teacher: euler, or unipc, about as good in half the steps.
      negative: prompt that the teacher is guided away from; by default a caption of zeros.
      resume: go on with the shots that are missing.
      only: with --resume, film shot N again as another take, and keep all others.
      from_shot: with --resume, film shot N and all later ones again, as other takes.
      seed: of the new take of shot N; without --only or --from, of every shot of the film.
      size: height and width, in place of the story's; by default the model's own.
      fps: video frames per second, in place of the story's.
      chunks: of every shot, in place of the story's.
      whole_shots: denoise each shot in one program; no frame is there before its shot is done.
      overwrite: film anew where a film was made before, which is kept until the new one is
        complete; files that are not a film's are left alone.
      quiet: print errors alone.
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
    lora: LoRAFiles = ()
    role: Literal["student", "teacher"] = "student"
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    guidance: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    history_guidance: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    solver: Annotated[Literal["euler", "unipc"] | None, tyro.conf.arg(metavar="NAME")] = None
    negative: Annotated[str | None, tyro.conf.arg(metavar="PROMPT")] = None
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    only: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    from_shot: Annotated[int | None, tyro.conf.arg(name="from", metavar="N")] = None
    seed: Annotated[int | None, tyro.conf.arg(metavar="S")] = None
    size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="HEIGHT WIDTH")] = None
    fps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    chunks: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    whole_shots: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def generate(args: Annotated[Generate, tyro.conf.arg(name="")]) -> None:
    """Film a story: each shot's video is on disk when it ends, and the film when all are there.

    Args:
      args: what to film, with what, and into which folder.

    Raises:
      ValueError: a story, model or folder that will not do.
      OSError: no room, or no permission.
    """
    console = Console(stderr=True, quiet=args.json or args.quiet)
    folder, again, sample = local_path(args.output), _again(args), _teacher_sampling(args)
    source = find_model(args.checkpoint or args.preset)
    file = _read_story(args, source.config)
    story = file.story
    for note in file.notes:
        console.print(Text(str(note), "yellow"))
    # Story, options and folder before the weights, which take longest.
    check_folder(folder, resume=args.resume, overwrite=args.overwrite)
    for unknown in unknown_words(source.tokenizer, story):
        console.print(Text(f"{unknown} `shotstream words` lists those that it knows.", "yellow"))
    model = open_named(
        args.checkpoint or args.preset,
        args.dtype,
        args.devices,
        text_on_host=args.text_on_host,
        vae_apart=args.vae_apart,
        approximate=args.approximate,
        lora=args.lora,
    )
    _print_what_films(console, story, model)
    with ProgressBar(console, _COMPILING) as bar:
        bar.line_without_bar(f"{_COMPILING} ...")
        filmed = filming.film_story(
            model,
            story,
            folder,
            facts=_facts(args, model),
            resume=args.resume,
            overwrite=args.overwrite,
            again=again,
            camera=_camera(args, model, sample),
            events=filming.FilmingEvents(
                chunk=functools.partial(_show, bar),
                note=lambda line: console.print(Text(line, "yellow")),
            ),
        )
    _print_summary(filmed, console, as_json=args.json)


def _read_story(args: Generate, config: ModelConfig) -> StoryFile:
    """The story, with what the options say in place of what it says.

    Raises:
      StoryError: a file that is no story, a setting that no story may have, or a size that this
        device has no memory for.
    """
    # With --only or --from, the seed is that of the one shot that gets a new take.
    seed = args.seed if args.only is None and args.from_shot is None else None
    changes = {"size": args.size, "fps": args.fps, "chunks": args.chunks, "seed": seed}
    file, device = read_story_for(args.story, config, **changes), jax.local_devices()[0]
    problem = fit_problem(file, config, device_memory(device), device.platform)
    if problem is not None:
        raise StoryError([problem])
    return file


def _print_what_films(console: Console, story: Story, model: Model) -> None:
    console.print(Text(f"{story.title}: {_summary(story, model)}"))
    for line in model.loras:
        console.print(Text(f"{line}."))
    if model.networks.approximation.names:
        console.print(
            Text(f"Approximate: {', '.join(model.networks.approximation.names)}.", "yellow")
        )
    # A test pattern must not be taken for what the method can do.
    if model.weights == "random":
        console.print(Text("These weights are random: expect moving noise, not a story.", "yellow"))


def _again(args: Generate) -> filming.Again | None:
    """Which shots are to be filmed again.

    Raises:
      ValueError: options that contradict one another.
    """
    if args.only is not None and args.from_shot is not None:
        raise ValueError(
            f"--only {args.only} keeps the shots after it and --from {args.from_shot} films them "
            "again; give one of them."
        )
    shot = args.only if args.only is not None else args.from_shot
    if shot is None:
        return None
    if not args.resume:
        raise ValueError("--only and --from film shots of a finished film again; add --resume.")
    # Shots count from 1 for people, from 0 in a story.
    return filming.Again(shot=shot - 1, later=args.only is None, seed=args.seed)


_OF_THE_TEACHER = ("steps", "guidance", "history_guidance", "solver", "negative")


def _teacher_sampling(args: Generate) -> SampleConfig | None:
    """How the teacher samples; `None` for the student.

    Raises:
      ValueError: options of the other one.
    """
    # By identity: 0 steps are given, and refused, though 0 equals False.
    unset = (None, False)
    given = [
        name for name in _OF_THE_TEACHER if not any(getattr(args, name) is value for value in unset)
    ]
    if args.role == "student":
        if given:
            option = given[0].replace("_", "-")
            raise ValueError(f"--{option} is the teacher's; add --role teacher, or leave it out.")
        return None
    if args.whole_shots or args.approximate:
        raise ValueError(
            "The teacher samples whole shots, and exactly; leave out --whole-shots and "
            "--approximate."
        )
    chosen = {name: getattr(args, name) for name in given if name != "negative"}
    return SampleConfig(**chosen)


def _camera(args: Generate, model: Model, sample: SampleConfig | None) -> MakeCamera:
    if sample is None:
        return functools.partial(student_camera, model, whole_shots=args.whole_shots)
    # Trajectories follow the schedule that the model was trained with.
    sample = dataclasses.replace(sample, shift=model.config.rollout.shift)
    return functools.partial(teacher_camera, model, sample=sample, negative=args.negative)


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
        "approximate": list(model.networks.approximation.names),
        **({"lora": list(args.lora)} if args.lora else {}),
        "devices": len(model.networks.mesh.devices.flat) if model.networks.mesh else 1,
    }


def _print_summary(filmed: filming.Filmed, console: Console, *, as_json: bool) -> None:
    # Stale shots stay as they are: whether a new history matters to them is for the author to see.
    folder, places = filmed.film.folder, [place + 1 for place in filmed.stale]
    if places:
        console.print(
            Text(
                f"Filmed after other takes of earlier shots than these: {_listed(places)}. "
                f"--resume --from {places[0]} films from there on again.",
                "yellow",
            )
        )
    # Read back from disk, so that what is printed is what was kept.
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if as_json:
        sys.stdout.write(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        return
    if not manifest["complete"]:
        missing = [place + 1 for place in filmed.film.missing()]
        console.print(
            Text(f"Still to be filmed: {_listed(missing)}; --resume films what is missing.")
        )
        return
    timings = manifest["timings"]
    done = (
        f"{timings['frames']} frames in {timings['total']:.1f} s."
        if filmed.shots
        else "the film is complete, and nothing was left to do."
    )
    # As text: a folder's name may hold what the console would read as markup.
    console.print(Text(f"{folder / FILM} and {CONTACT} are ready: {done}"), soft_wrap=True)


def _listed(shots: list[int]) -> str:
    return f"shot{'s' if len(shots) > 1 else ''} {', '.join(map(str, shots))}"


def _show(bar: ProgressBar, progress: FilmingProgress) -> None:
    """Show a chunk, and a line for the first frames and for every finished shot."""
    plan, chunk = progress.piece.plan, progress.piece.chunk
    # The wait that a viewer has, compilation included; the rate beside the bar leaves it out.
    if progress.chunks_done == 1:
        bar.line(f"First frames after {progress.seconds:.1f} s.")
    bar.update(
        f"Shot {plan.index + 1}/{progress.shots}, chunk {chunk + 1}/{plan.chunks}",
        done=progress.chunks_done,
        total=progress.chunks_done + progress.chunks_left,
        status=pace(progress.fps, "frames", progress.seconds_left),
    )
    if progress.piece.ends_shot:
        bar.line(
            f"Shot {plan.index + 1} of {progress.shots}: {progress.shot_frames} frames in "
            f"{progress.shot_seconds:.1f} s."
        )
