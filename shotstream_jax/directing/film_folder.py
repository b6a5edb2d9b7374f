"""The folder a film is made in: every finished shot is on disk before the next one begins.

    shot_01.mp4 shot_01.npz shot_01.json   a shot: video, latents, plan (written last: it is done)
    takes/shot_01_take_0.*                 the same of a take that another one has replaced
    story.yaml                             the story with every default written out
    film.mp4 contact.png                   the whole, when all shots are there
    manifest.json                          what made it: model, versions, seeds, timings

Shots count from 1 in file names, as people count. Every file is whole or not there.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from shotstream_jax.contact_sheet import ContactRow, contact_sheet, save_png
from shotstream_jax.directing.folder_contents import (
    CONTACT,
    FILM,
    MANIFEST,
    SHOT_FILES,
    STORY,
    FilmFolderError,
    missing_shots,
    put_aside,
    shot_path,
    surplus_shots,
)
from shotstream_jax.directing.plans_on_disk import difference, plan_document, upgraded
from shotstream_jax.directing.shot_files import (
    check_file,
    read_json,
    read_latents,
    refuse_other_format,
)
from shotstream_jax.directing.take_writer import TakeWriter
from shotstream_jax.directing.video import concatenate, read_video
from shotstream_jax.files import atomic_file
from shotstream_jax.story import ShotPlan, Story, dump_story
from shotstream_jax.strict_json import brief
from shotstream_jax.typing import TakeLatents


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmFolder:
    """A film folder: what it is to hold, and the files of it that are there.

    Attributes:
      folder: where it is.
      story: with every default written out.
      model: digest of the model; another model cannot finish the film.
      dtype: format that the transformer computes in; another one films a little differently.
      badge: what must not be overlooked on the contact sheet, such as "random weights".
      chunk_shape: of one chunk's latents: batch, frame, row, col, chan.
    """

    folder: pathlib.Path
    story: Story
    model: str
    dtype: str
    badge: str
    chunk_shape: tuple[int, ...]

    def missing(self) -> tuple[int, ...]:
        """Places of the shots that are not complete on disk."""
        return missing_shots(self.folder, len(self.story.shots))

    def take_writer(self, plan: ShotPlan) -> TakeWriter:
        """Record a take; as a context, its files are in the folder when the block ends well."""
        return TakeWriter(
            {suffix: self._path(plan.index, suffix) for suffix in SHOT_FILES},
            plan,
            fps=self.story.defaults.fps,
            size=self.story.defaults.size,
        )

    def latents(self, plan: ShotPlan) -> TakeLatents:
        """Latents of a finished shot.

        Raises:
          FilmFolderError: the file is damaged, or not of the shape that the plan gives.
        """
        batch, frames, *rest = self.chunk_shape
        shape = (batch, plan.chunks * frames, *rest)
        return read_latents(self._path(plan.index, "npz"), shape)

    def check_format(self) -> None:
        """See, before a film is resumed, that model, number format, size and rate are its own.

        Raises:
          FilmFolderError: with both values.
        """
        manifest = self.folder / MANIFEST
        if manifest.is_file():
            refuse_other_format(self.folder, read_json(manifest), self._format())

    def check(self, plan: ShotPlan) -> bool:
        """See that a finished shot is the one that the story asks for now, and undamaged.

        Returns:
          Whether it was filmed after other takes of earlier shots than those here now.

        Raises:
          FilmFolderError: it was filmed to another plan, or its files are not those it was
            written with.
        """
        path, number = self._path(plan.index, "json"), plan.index + 1
        document = read_json(path)
        try:
            filmed = upgraded(document, self.story)
            name, stale = difference(filmed, plan_document(plan))
        # A plan is a file like any other here: it may hold anything where a frame should be.
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise FilmFolderError(
                f"{path} is not a plan ({type(error).__name__}: {error}). {_again(number)}"
            ) from error
        if name is not None:
            raise FilmFolderError(
                f"{path} was filmed with {name} {brief(filmed.get(name))} and the story says "
                f"{brief(plan_document(plan)[name])}. {_again(number)}"
            )
        try:
            for suffix in ("mp4", "npz"):
                facts = document.get("files")
                check_file(
                    self._path(plan.index, suffix),
                    facts.get(suffix, {}) if isinstance(facts, dict) else None,
                )
            self.latents(plan)
        except FilmFolderError as error:
            raise FilmFolderError(f"{error}. {_again(number)}") from error
        return stale

    def put_aside(self, index: int) -> None:
        """Move a shot's files to `takes/`; the shot is then missing."""
        take = read_json(self._path(index, "json")).get("take", 0)
        put_aside(self.folder, index, take if isinstance(take, int) else 0)

    def put_surplus_aside(self) -> tuple[int, ...]:
        """Move shots of a longer story to `takes/`; their places come back."""
        surplus = surplus_shots(self.folder, len(self.story.shots))
        for index in surplus:
            self.put_aside(index)
        return surplus

    def is_complete(self) -> bool:
        """Whether the folder holds this very film, joined and described."""
        story, manifest = self.folder / STORY, self.folder / MANIFEST
        if self.missing() or surplus_shots(self.folder, len(self.story.shots)):
            return False
        if not all(path.is_file() for path in (story, manifest, self.folder / FILM)):
            return False
        same = story.read_text(encoding="utf-8", errors="replace") == dump_story(self.story)
        found = read_json(manifest)
        return same and found.get("complete") is True and found.get("badge") == self.badge

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Join the shots, draw the contact sheet and write the manifest with `facts` in it."""
        shots = range(len(self.story.shots))
        concatenate([self._path(k, "mp4") for k in shots], self.folder / FILM)
        sheet = contact_sheet(list(self._rows()), title=self.story.title, badge=self.badge)
        save_png(sheet, self.folder / CONTACT)
        files = [self._path(k, "mp4").name for k in shots]
        self._write_manifest({"complete": True, "shots": files, **facts})

    def begin(self) -> None:
        """Write an unfinished manifest, then the story.

        In this order: a folder with a manifest is known as a film's, whatever else is there yet.
        """
        self._write_manifest({"complete": False})
        with atomic_file(self.folder / STORY) as path:
            path.write_text(dump_story(self.story), encoding="utf-8")

    def _rows(self) -> Iterator[ContactRow]:
        for k, shot in enumerate(self.story.shots):
            yield ContactRow.of_film(
                read_video(self._path(k, "mp4")),
                label=shot.id or str(k + 1),
                caption=shot.caption,
                seed=self.story.defaults.seed if shot.seed is None else shot.seed,
            )

    def _format(self) -> dict[str, Any]:
        """What must not change while a film is unfinished."""
        defaults = self.story.defaults
        return {
            "model_digest": self.model,
            "dtype": self.dtype,
            "size": list(defaults.size),
            "fps": defaults.fps,
        }

    def _write_manifest(self, facts: Mapping[str, Any]) -> None:
        whose = {"title": self.story.title, "badge": self.badge, **self._format()}
        text = json.dumps({**whose, **facts}, indent=2, ensure_ascii=False) + "\n"
        with atomic_file(self.folder / MANIFEST) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _path(self, index: int, suffix: str) -> pathlib.Path:
        return shot_path(self.folder, index, suffix)


def _again(number: int) -> str:
    """What to do about a shot that cannot be kept; `number` counts from 1."""
    return (
        f"`--resume --from {number}` films this shot and the later ones again, `--resume --only "
        f"{number}` this one alone, and another folder takes another film."
    )
