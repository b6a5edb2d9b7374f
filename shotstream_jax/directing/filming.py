"""Filming a story into a folder: camera, folder and clock together."""

import dataclasses
import functools
import pathlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from shotstream_jax.directing.film_folder import (
    FilmFolder,
    FilmFolderError,
    missing_shots,
    open_film,
    retaken,
    with_takes,
)
from shotstream_jax.model import Model
from shotstream_jax.progress import RateMeter, seconds_left
from shotstream_jax.rollout.stream import (
    Camera,
    ContextFrameStore,
    FilmedChunk,
    context_sources,
    one_ahead,
    plan_story,
)
from shotstream_jax.rollout.teacher import SampleConfig
from shotstream_jax.rollout.teacher_camera import TeacherCamera
from shotstream_jax.story import ShotPlan, Story, full_captions
from shotstream_jax.typing import Latents


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmingProgress:
    """Progress after a chunk.

    Attributes:
      piece: the chunk that was just recorded.
      shots: of the story.
      chunks_done: chunks recorded by this run, of all shots.
      chunks_left: chunks still to be filmed.
      frames: video frames recorded by this run.
      shot_frames: video frames of this shot so far.
      seconds: since this run began, compilation included.
      shot_seconds: since this shot began.
      fps: video frames per second since the first chunk; `None` before the second.
      seconds_left: time left at the rate so far, once there is one.
    """

    piece: FilmedChunk
    shots: int
    chunks_done: int
    chunks_left: int
    frames: int
    shot_frames: int
    seconds: float
    shot_seconds: float
    fps: float | None
    seconds_left: float | None


FilmingWatch = Callable[[FilmingProgress], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Again:
    """Shots of a film that are to be filmed again.

    Attributes:
      shot: place of the first of them, from 0; it gets a new take.
      later: whether all shots after it are filmed again too, on the new history.
      seed: of the new take; by default that of the old one.
    """

    shot: int
    later: bool
    seed: int | None = None


@runtime_checkable
class FilmsShots(Protocol):
    """What films the shots of one film: a camera of the student, or of the teacher."""

    @property
    def store(self) -> ContextFrameStore:
        """Frames that later shots may see."""
        ...

    @property
    def sampler(self) -> str:
        """How it samples, where that is not how the model's student does."""
        ...

    def film(self, plan: ShotPlan) -> Iterator[FilmedChunk]:
        """Film a take, chunk by chunk."""
        ...

    def replay(self, plan: ShotPlan, latents: Latents) -> Iterator[FilmedChunk]:
        """Take a shot that was filmed before as filmed."""
        ...


MakeCamera = Callable[[Sequence[ShotPlan], tuple[int, int]], FilmsShots]
"""Makes what films the shots of some plans, at a height and width in pixels."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filmed:
    """A finished film.

    Attributes:
      film: its folder.
      stale: places of shots that were filmed after other takes of earlier shots than there are now.
    """

    film: FilmFolder
    stale: tuple[int, ...]


def film_story(
    model: Model,
    story: Story,
    folder: pathlib.Path | str,
    *,
    facts: Mapping[str, Any] | None = None,
    resume: bool = False,
    again: Again | None = None,
    camera: MakeCamera | None = None,
    watch: FilmingWatch = lambda progress: None,
    tell: Callable[[str], None] = lambda line: None,
) -> Filmed:
    """Film a story into a folder, shot by shot; a finished shot is never lost.

    Args:
      model: what to film with.
      story: what to film.
      folder: new or empty; or, to resume, the folder it was begun in.
      facts: more lines for the manifest.
      resume: go on with the shots that are missing.
      again: with `resume`, film finished shots again; replaced takes stay in `takes/`.
      camera: makes what films; by default a camera of the causal student.
      watch: called after every chunk.
      tell: called with a line for everything that is done differently from what the story says.

    Raises:
      FilmFolderError: a folder that is not empty, or that holds another film.
      ValueError: a story that the model cannot film, such as a caption that is too long.
      OSError: no room, or no permission.
    """
    folder = pathlib.Path(folder)
    if resume:
        story = _with_takes(story, folder, tell)
    story = story.resolved()
    todo, replaced = _to_film(story, folder, again)
    if again is not None:
        story = retaken(story, replaced, {again.shot: again.seed})
    _check_captions(model, story)
    plans = plan_story(model.networks, story)
    films = (camera or functools.partial(student_camera, model))(plans, story.defaults.size)
    # Another sampler films another film, as another model does.
    digest = "+".join(filter(None, (model.digest, films.sampler)))
    film = open_film(folder, story, model=digest, badge=model.badge, resume=resume)
    kept = [plan for plan in plans if plan.index not in (*todo, *film.missing())]
    stale = tuple(plan.index for plan in kept if film.check(plan))
    # Everything has been checked; from here on the folder changes.
    for place in replaced:
        film.put_aside(place)
    film.begin()
    timings = _Timings(chunks=sum(plans[k].chunks for k in todo), shots=len(plans))
    _film_shots(
        film, films, plans, todo, lambda piece, frames: watch(timings.record(piece, frames))
    )
    if not film.missing():
        film.finish(
            {
                **(facts or {}),
                **_versions(),
                "seeds": [shot.seed for shot in story.shots],
                "takes": [shot.take or 0 for shot in story.shots],
                "stale": [story.shot_id(place) for place in stale],
                "timings": timings.as_json(),
            }
        )
    return Filmed(film=film, stale=stale)


def student_camera(
    model: Model, plans: Sequence[ShotPlan], size: tuple[int, int], *, whole_shots: bool = False
) -> FilmsShots:
    """A camera of the causal student that keeps the frames which some plans name.

    With `whole_shots` each shot is denoised in one program: the same film, but no frame of a shot
    is there before all of them.
    """
    wanted = context_sources(plans)
    return Camera(model.networks, size, wanted=wanted, whole_takes=whole_shots)


def teacher_camera(
    model: Model,
    plans: Sequence[ShotPlan],
    size: tuple[int, int],
    *,
    sample: SampleConfig,
    negative: str | None = None,
) -> FilmsShots:
    """A camera of the bidirectional teacher that keeps the frames which some plans name."""
    wanted = context_sources(plans)
    return TeacherCamera(model.networks, size, sample=sample, negative=negative, wanted=wanted)


def _film_shots(
    film: FilmFolder,
    films: FilmsShots,
    plans: Sequence[ShotPlan],
    todo: Sequence[int],
    delivered: Callable[[FilmedChunk, int], None],
) -> None:
    """Film the shots of `todo`, and replay finished ones as far as those need them."""
    # Shots after the last one to film are not replayed: nothing sees them.
    for plan in plans[: max(todo, default=-1) + 1]:
        if plan.index in todo:
            with film.take_writer(plan) as take:
                for piece in one_ahead(films.film(plan)):
                    delivered(piece, take.add(piece))
        else:
            # Decoded again for what later shots see, and from latents: the mp4, whose colours are
            # rounded and subsampled, would show them something else.
            for _ in films.replay(plan, jax.numpy.asarray(film.latents(plan.index))):
                pass
        films.store.keep(context_sources(plans[plan.index + 1 :]))


def _with_takes(story: Story, folder: pathlib.Path, tell: Callable[[str], None]) -> Story:
    story, changed = with_takes(story, folder)
    for place in changed:
        shot = story.shots[place]
        tell(f"Shot {place + 1} is take {shot.take} (seed {shot.seed}) in {folder}.")
    return story


def _to_film(
    story: Story, folder: pathlib.Path, again: Again | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Places of the shots to film, and of those among them whose finished takes are replaced."""
    missing = missing_shots(folder, len(story.shots))
    if again is None:
        return missing, ()
    count = len(story.shots)
    if not 0 <= again.shot < count:
        raise ValueError(f"Shot {again.shot + 1} of a story of {count}; choose 1 to {count}.")
    before = [place for place in missing if place < again.shot]
    if before:
        raise FilmFolderError(
            f"Shot {before[0] + 1} in {folder} is not filmed yet, and shot {again.shot + 1} comes "
            "after it; finish the film with --resume first."
        )
    todo = tuple(range(again.shot, count if again.later else again.shot + 1))
    return todo, tuple(place for place in todo if place not in missing)


def _check_captions(model: Model, story: Story) -> None:
    """Refuse captions that are too long, all of them before any work.

    Raises:
      ValueError: with the shot and both counts.
    """
    limit = model.config.dit.text_tokens
    for shot, caption in zip(story.shots, full_captions(story), strict=True):
        count = model.count_tokens(caption)
        if count > limit:
            raise ValueError(
                f"Shot {shot.id}: its caption has {count} tokens with the global caption, and "
                f"{limit} fit; take out {count - limit} (`shotstream check` counts them)."
            )


class _Timings:
    """Counts and times what is recorded, for the progress and for the manifest."""

    def __init__(self, chunks: int, shots: int):
        self.chunks, self.shots = chunks, shots
        self.began = self.shot_began = time.perf_counter()
        self.first: float | None = None
        self.done = self.frames = self.frames_before_shot = 0
        # Two rates: a shot's first chunk has fewer frames than its others, and takes as long.
        self.chunk_rate, self.frame_rate = RateMeter(), RateMeter()
        self.shot_seconds: dict[str, float] = {}

    def record(self, piece: FilmedChunk, frames: int) -> FilmingProgress:
        """Count a chunk of some video frames."""
        now = time.perf_counter()
        self.done += 1
        self.frames += frames
        self.chunk_rate.count()
        self.frame_rate.count(frames)
        if self.first is None:
            self.first = now
        left = self.chunks - self.done
        progress = FilmingProgress(
            piece=piece,
            shots=self.shots,
            chunks_done=self.done,
            chunks_left=left,
            frames=self.frames,
            shot_frames=self.frames - self.frames_before_shot,
            seconds=now - self.began,
            shot_seconds=now - self.shot_began,
            fps=self.frame_rate.rate,
            seconds_left=seconds_left(left, self.chunk_rate.rate),
        )
        if piece.ends_shot:
            name = f"shot_{piece.plan.index + 1:02d}"
            self.shot_seconds[name] = round(progress.shot_seconds, 3)
            self.shot_began, self.frames_before_shot = now, self.frames
        return progress

    def as_json(self) -> dict[str, Any]:
        """Seconds of this run: to the first frames, of each shot, and of all."""
        first = None if self.first is None else round(self.first - self.began, 3)
        return {
            "frames": self.frames,
            "first_frames_after": first,
            "shots": self.shot_seconds,
            "total": round(time.perf_counter() - self.began, 3),
        }


def _versions() -> dict[str, Any]:
    return {
        "device": jax.devices()[0].device_kind,
        "versions": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
        },
    }
