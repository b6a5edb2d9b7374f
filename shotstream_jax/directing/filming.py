"""Filming a story into a folder: camera, folder and clock together."""

import dataclasses
import functools
import pathlib
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.directing.cameras import FilmsShots, MakeCamera, student_camera
from shotstream_jax.directing.film_folder import FilmFolder
from shotstream_jax.directing.folder_contents import (
    FilmFolderError,
    check_folder,
    claimed,
    drop_replaced,
    is_begun,
    missing_shots,
    restore,
    set_aside,
)
from shotstream_jax.directing.takes import retaken, with_takes
from shotstream_jax.directing.timings import FilmingProgress, Timings
from shotstream_jax.model import Model
from shotstream_jax.model_config import ModelConfig
from shotstream_jax.rollout.stream import (
    FilmedChunk,
    context_sources,
    one_ahead,
    plan_story,
)
from shotstream_jax.story import ShotPlan, Story, full_captions


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmingEvents:
    """What is called while a story is filmed.

    Attributes:
      chunk: after every chunk, and after a shot's last one when all of the shot is on disk.
      note: with a line for everything that is done differently from what the story says.
    """

    chunk: Callable[[FilmingProgress], None] = lambda progress: None
    note: Callable[[str], None] = lambda line: None


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filmed:
    """A finished film.

    Attributes:
      film: its folder.
      stale: places of shots that were filmed after other takes of earlier shots than there are now.
      shots: places of the shots that this run filmed.
    """

    film: FilmFolder
    stale: tuple[int, ...]
    shots: tuple[int, ...]


class NotFiniteError(ValueError):
    """A chunk with latents or pixels that are NaN or infinite; shots before it are kept."""


def film_story(
    model: Model,
    story: Story,
    folder: pathlib.Path | str,
    *,
    facts: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    again: Again | None = None,
    camera: MakeCamera | None = None,
    events: FilmingEvents = FilmingEvents(),
) -> Filmed:
    """Film a story into a folder, shot by shot; a finished shot is never lost.

    Args:
      model: what to film with.
      story: what to film.
      folder: new or empty; or, to resume, the folder it was begun in.
      facts: more lines for the manifest.
      resume: go on with the shots that are missing.
      overwrite: film anew; the film that is there is kept until the new one is complete.
      again: with `resume`, film finished shots again; replaced takes stay in `takes/`.
      camera: makes what films; by default a camera of the causal student.
      events: what is called meanwhile.

    Raises:
      FilmFolderError: a folder that is not empty, that holds another film, or that another process
        films in.
      ValueError: a story that the model cannot film, such as a caption that is too long; or a
        chunk that is not finite.
      OSError: no room, or no permission.
    """
    folder = pathlib.Path(folder)
    if resume and overwrite:
        raise ValueError("To resume a film and to overwrite it exclude each other; choose one.")
    check_folder(folder, resume=resume, overwrite=overwrite)
    with claimed(folder):
        return _film_claimed(
            model,
            story,
            folder,
            facts=facts or {},
            resume=resume,
            again=again,
            camera=camera or functools.partial(student_camera, model),
            events=events,
        )


def _film_claimed(
    model: Model,
    story: Story,
    folder: pathlib.Path,
    *,
    facts: Mapping[str, Any],
    resume: bool,
    again: Again | None,
    camera: MakeCamera,
    events: FilmingEvents,
) -> Filmed:
    if resume:
        story = _with_takes(story, folder, events.note)
    story = story.resolved()
    todo, replaced = _to_film(story, folder, again, resume=resume)
    if again is not None:
        story = retaken(story, replaced, {again.shot: again.seed})
    _check_captions(model, story)
    plans = plan_story(model.networks, story)
    films = camera(plans, story.defaults.size)
    film = FilmFolder(
        folder=folder,
        story=story,
        # Another sampler films another film, as another model does.
        model="+".join(filter(None, (model.digest, films.sampler))),
        dtype=jnp.dtype(model.networks.compute.dtype).name,
        badge=model.badge,
        chunk_shape=_chunk_shape(model.config, story.defaults.size),
    )
    stale = _check_kept(film, plans, todo) if resume else ()
    if resume and not todo and film.is_complete():
        return Filmed(film=film, stale=stale, shots=())
    # Everything has been checked; from here on the folder changes.
    if not resume and is_begun(folder):
        set_aside(folder)
    try:
        for place in replaced:
            film.put_aside(place)
        for place in film.put_surplus_aside():
            events.note(f"Shot {place + 1} is of a longer story; its files are in takes/ now.")
        film.begin()
        timings = Timings(chunks=sum(plans[k].chunks for k in todo), shots=len(plans))
        _film_shots(film, films, plans, todo, lambda *chunk: events.chunk(timings.record(*chunk)))
        if not film.missing():
            film.finish(
                {
                    **facts,
                    **_versions(),
                    "seeds": [shot.seed for shot in story.shots],
                    "takes": [shot.take or 0 for shot in story.shots],
                    "stale": [story.shot_id(place) for place in stale],
                    "timings": timings.as_json(),
                }
            )
            drop_replaced(folder)
    finally:
        # Only a film of which no shot was finished makes room again for the one before it.
        restore(folder)
    return Filmed(film=film, stale=stale, shots=todo)


def _check_kept(
    film: FilmFolder, plans: Sequence[ShotPlan], todo: Sequence[int]
) -> tuple[int, ...]:
    """See that all shots that are to be kept are those of the story, and undamaged.

    Returns:
      Places of those that were filmed after other takes of earlier shots than there are now.
    """
    film.check_format()
    kept = [plan for plan in plans if plan.index not in todo]
    return tuple(plan.index for plan in kept if film.check(plan))


def _film_shots(
    film: FilmFolder,
    films: FilmsShots,
    plans: Sequence[ShotPlan],
    todo: Sequence[int],
    delivered: Callable[[FilmedChunk, int], None],
) -> None:
    """Film the shots of `todo`, and replay finished ones as far as those need them.

    Raises:
      NotFiniteError: a chunk that is not finite; its shot is not kept.
    """
    # Shots after the last one to film are not replayed: nothing sees them.
    for plan in plans[: max(todo, default=-1) + 1]:
        if plan.index in todo:
            last = None
            with film.take_writer(plan) as take:
                for piece in one_ahead(films.film(plan)):
                    _refuse_not_finite(piece)
                    frames = take.add(piece)
                    if piece.ends_shot:
                        last = piece, frames
                    else:
                        delivered(piece, frames)
            # Of its last chunk a shot is told of when all of it is on disk.
            if last is not None:
                delivered(*last)
        else:
            # Decoded again for what later shots see, and from latents: the mp4, whose colours are
            # rounded and subsampled, would show them something else.
            for _ in films.replay(plan, jnp.asarray(film.latents(plan))):
                pass
        films.store.keep(context_sources(plans[plan.index + 1 :]))


def _refuse_not_finite(piece: FilmedChunk) -> None:
    if not all(piece.finite):
        raise NotFiniteError(
            f"Shot {piece.plan.index + 1}, chunk {piece.chunk + 1}: latents or pixels are NaN or "
            "infinite, so filming stops; shots before it are kept. Check the weights (`shotstream "
            "convert` refuses those that are not finite), or compute in float32."
        )


def _with_takes(story: Story, folder: pathlib.Path, tell: Callable[[str], None]) -> Story:
    story, changed = with_takes(story, folder)
    for place in changed:
        shot = story.shots[place]
        tell(f"Shot {place + 1} is take {shot.take} (seed {shot.seed}) in {folder}.")
    return story


def _to_film(
    story: Story, folder: pathlib.Path, again: Again | None, *, resume: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Places of the shots to film, and of those among them whose finished takes are replaced."""
    missing = missing_shots(folder, len(story.shots))
    if not resume:
        return tuple(range(len(story.shots))), ()
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


def _chunk_shape(config: ModelConfig, size: tuple[int, int]) -> tuple[int, ...]:
    """Batch, frame, row, col, chan of one chunk's latents."""
    return (1, config.rollout.window.chunk, *config.latent_grid(size), config.dit.latent_channels)


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


def _versions() -> dict[str, Any]:
    return {
        "device": jax.devices()[0].device_kind,
        "versions": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
        },
    }
