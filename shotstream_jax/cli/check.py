"""`shotstream check`: a story's shots, its problems, and an estimate of what filming it takes.

    shotstream check story.yaml
    shotstream check stories.csv#2 --checkpoint checkpoints/shotstream
    shotstream check - --size 480 832 --chunks 7 --preset wan-1.3b < story.yaml

Problems are printed one a line, each with `file:line`, field, both values and the next step. What
`generate` refuses is refused here, with the same exit status. Nothing is compiled and no weights
are read: memory and time are estimates, and are called so.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal

import jax
import tyro
from rich.console import Console

from shotstream_jax.cli.check_report import (
    ShotRow,
    StoryReport,
    plain_problems,
    plain_report,
    render_report,
    write_json,
)
from shotstream_jax.cli.exit_codes import ExitCode
from shotstream_jax.cli.options import read_story_for
from shotstream_jax.data.closed_vocabulary import UnknownWords, unknown_words
from shotstream_jax.model import find_model
from shotstream_jax.model_config import ModelConfig
from shotstream_jax.perf.device_rate import DeviceRate, device_rate
from shotstream_jax.perf.plan.estimate import estimate
from shotstream_jax.perf.plan.fit import device_memory, fit_problem
from shotstream_jax.presets import PRESETS
from shotstream_jax.rollout.chunk import check_positions
from shotstream_jax.story import (
    Problem,
    Story,
    StoryError,
    StoryFile,
    camera_start,
    context_frames,
    full_captions,
    plan_shot,
    shot_lengths,
)

TokenCounter = Callable[[str], int]
"""Tokens of a full caption, end token included."""

FindUnknown = Callable[[Story], Sequence[UnknownWords]]
"""Words of a story that a model does not know."""

_MOST_LINES = 20
"""Problems that are printed; a table with a wrong column has one a row."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """Which story, and what it would be filmed with.

    Attributes:
      story: a story (.yaml, .json), a table of captions, a row of a reference table as table.csv#1,
        or - for standard input.
      checkpoint: checkpoint folder to film with; without it the preset is used.
      preset: sizes to estimate by; captions are counted where a tokenizer comes with them.
      size: height and width, in place of the story's; by default the model's own.
      seed: of every shot, in place of the story's.
      fps: video frames per second, in place of the story's.
      chunks: of every shot, in place of the story's.
      tflops: operations that a device sustains, in 1e12 a second; by default those of this one.
      quiet: print problems alone.
      json: print one JSON object.
    """

    story: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORY")]
    checkpoint: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    preset: Literal["tiny", "wan-1.3b", "wan-14b"] = "tiny"
    size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="HEIGHT WIDTH")] = None
    seed: Annotated[int | None, tyro.conf.arg(metavar="S")] = None
    fps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    chunks: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    tflops: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmedWith:
    """What a story is checked for.

    Attributes:
      config: of the model.
      rate: operations that the device sustains.
      count_tokens: of a full caption; without it captions are not counted.
      find_unknown: words that the model does not know.
      room: bytes of the device; without it a film of any size passes.
      platform: of the device.
    """

    config: ModelConfig
    rate: DeviceRate
    count_tokens: TokenCounter | None = None
    find_unknown: FindUnknown | None = None
    room: int | None = None
    platform: str = "cpu"


def check_story(args: Annotated[Check, tyro.conf.arg(name="")]) -> int:
    """Print a story's problems, its shots with their tokens, and an estimate of memory and time.

    Args:
      args: which story, and what it would be filmed with.

    Returns:
      `DONE` for a story that can be filmed, with or without warnings; else `BAD_INPUT`.
    """
    filmed_with = _filmed_with(args)
    settings = {"size": args.size, "seed": args.seed, "fps": args.fps, "chunks": args.chunks}
    read = functools.partial(read_story_for, args.story, filmed_with.config, **settings)
    return check(read, filmed_with, as_json=args.json, quiet=args.quiet)


def _filmed_with(args: Check) -> FilmedWith:
    device = jax.local_devices()[0]
    # A rate that is given is that of another machine, whose memory is not known.
    is_here = args.tflops is None
    if args.tflops is None:
        rate = device_rate(device)
    else:
        rate = DeviceRate(flops=args.tflops * 1e12, reason="given")
    if args.checkpoint is None and args.preset != "tiny":
        # Sizes without weights are looked up for another machine than this one.
        return FilmedWith(config=PRESETS[args.preset], rate=rate)
    source = find_model(args.checkpoint or args.preset)
    return FilmedWith(
        config=source.config,
        rate=rate,
        count_tokens=source.tokenizer.count,
        find_unknown=functools.partial(unknown_words, source.tokenizer),
        room=device_memory(device) if is_here else None,
        platform=device.platform,
    )


def check(
    read: Callable[[], StoryFile],
    filmed_with: FilmedWith,
    *,
    as_json: bool = False,
    quiet: bool = False,
) -> int:
    """Print what `examine` finds in a story that `read` reads; returns the exit status."""
    try:
        report = examine(read(), filmed_with)
    except StoryError as error:
        if as_json:
            write_json({"ok": False, "problems": plain_problems(error.problems)})
        else:
            # One a line, beginning with file:line, as compilers do: editors jump there.
            sys.stderr.writelines(f"{line}\n" for line in _listed(error.problems))
        return ExitCode.BAD_INPUT
    if as_json:
        write_json(plain_report(report))
    elif not quiet:
        Console().print(render_report(report))
    return ExitCode.DONE


def _listed(problems: Sequence[Problem]) -> Iterator[str]:
    yield from map(str, problems[:_MOST_LINES])
    if len(problems) > _MOST_LINES:
        yield f"... and {len(problems) - _MOST_LINES} more."


def examine(file: StoryFile, filmed_with: FilmedWith) -> StoryReport:
    """Check a story: tokens, context and length of each shot, warnings, memory and time.

    Raises:
      StoryError: what `generate` refuses: a film size that the networks cannot divide or the device
        cannot hold, captions that are too long, a camera that runs longer than positions reach.
      ValueError: a rate that is not positive.
    """
    story, config = file.story.resolved(), filmed_with.config
    file = dataclasses.replace(file, story=story)
    try:
        cost = estimate(story, config, filmed_with.rate.flops)
        too_large = fit_problem(file, config, filmed_with.room, filmed_with.platform)
    except ValueError as error:
        # The estimate refuses rates and sizes alike; only a size is the story's fault.
        if not filmed_with.rate.flops > 0:
            raise
        field = ("defaults", "size")
        raise StoryError([Problem(field, str(error), file.places.of(field))]) from None
    rows = _rows(story, config, filmed_with.count_tokens)
    limit = config.dit.text_tokens
    refused = [*_too_long(rows, limit), *_out_of_reach(story, config)]
    if too_large or refused:
        raise StoryError(file.places.locate([*([too_large] if too_large else []), *refused]))
    return StoryReport(
        story=story,
        rows=rows,
        token_limit=limit,
        warnings=file.places.locate([*_warnings(file, filmed_with)]),
        estimate=cost,
        rate_reason=filmed_with.rate.reason,
    )


def _warnings(file: StoryFile, filmed_with: FilmedWith) -> Iterator[Problem]:
    story = file.story
    yield from file.notes
    if len(story.shots) > 1 and not story.global_caption.strip():
        message = "missing; nothing says what the shots share: name characters, place and style"
        yield Problem(("global",), message)
    yield from _camera_warnings(story, filmed_with.config)
    for shot in filmed_with.find_unknown(story) if filmed_with.find_unknown else ():
        message = f"{shot.reason}; `shotstream words` lists what it knows"
        yield Problem(("shots", shot.shot, "caption"), message)


def _rows(
    story: Story, config: ModelConfig, count_tokens: TokenCounter | None
) -> tuple[ShotRow, ...]:
    chunk, stride = config.rollout.window.chunk, config.vae.temporal_stride
    lengths = shot_lengths(story, chunk_frames=chunk, temporal_stride=stride)
    return tuple(
        ShotRow(
            shot=shot,
            tokens=count_tokens(caption) if count_tokens else None,
            seconds=lengths[index] / story.defaults.fps,
            context=context_frames(
                lengths[: camera_start(story, index)], config.rollout.window.context
            ),
        )
        for index, (shot, caption) in enumerate(zip(story.shots, full_captions(story), strict=True))
    )


def _too_long(rows: Sequence[ShotRow], limit: int) -> tuple[Problem, ...]:
    return tuple(
        Problem(
            ("shots", index, "caption"),
            f"{row.tokens} tokens with the global caption, the text encoder reads {limit}; "
            f"take out {row.tokens - limit}",
        )
        for index, row in enumerate(rows)
        if row.tokens is not None and row.tokens > limit
    )


def _chunks_of_camera(story: Story, index: int) -> int:
    """Chunks since the last cut, with those of shot `index`."""
    camera = story.shots[camera_start(story, index) : index + 1]
    return sum(shot.chunks or story.defaults.chunks for shot in camera)


def _out_of_reach(story: Story, config: ModelConfig) -> Iterator[Problem]:
    # All shots of a story have the same kind of positions: that of its format.
    positions = plan_shot(story, 0, budget=config.rollout.window.context).positions
    for index in range(len(story.shots)):
        try:
            check_positions(config, positions, _chunks_of_camera(story, index) - 1)
        except ValueError as error:
            yield Problem(("shots", index), str(error))


def _camera_warnings(story: Story, config: ModelConfig) -> Iterator[Problem]:
    # Since the cut, not of the shot: a shot that continues goes on in the same cache and positions.
    room = config.rollout.window.local // config.rollout.window.chunk
    for index in range(len(story.shots)):
        chunks = _chunks_of_camera(story, index)
        if chunks > room:
            message = (
                f"{chunks} chunks since the last cut, the network looks back over {room}; "
                "cut sooner if the shot drifts"
            )
            yield Problem(("shots", index), message)
