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
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from shotstream_jax.contact_sheet import ContactRow, contact_sheet, save_png
from shotstream_jax.directing.plans_on_disk import difference, plan_document, upgraded
from shotstream_jax.directing.take_writer import TakeWriter
from shotstream_jax.directing.video import concatenate, read_video
from shotstream_jax.files import atomic_file
from shotstream_jax.story import ShotPlan, Story, dump_story, load_story
from shotstream_jax.typing import Float

# The plan first: files of a replaced take are moved in this order, and a shot without a plan counts
# as missing at every moment in between.
_SHOT_FILES = ("json", "mp4", "npz")
MANIFEST, STORY, FILM, CONTACT, TAKES = (
    "manifest.json",
    "story.yaml",
    "film.mp4",
    "contact.png",
    "takes",
)


class FilmFolderError(ValueError):
    """A folder that cannot take this film; nothing in it was changed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmFolder:
    """An open film folder.

    Attributes:
      folder: where it is.
      story: with every default written out.
      model: digest of the model; another model cannot finish the film.
      badge: what must not be overlooked on the contact sheet, such as "random weights".
    """

    folder: pathlib.Path
    story: Story
    model: str
    badge: str

    def missing(self) -> tuple[int, ...]:
        """Places of the shots that are not complete on disk."""
        return missing_shots(self.folder, len(self.story.shots))

    def take_writer(self, plan: ShotPlan) -> TakeWriter:
        """Record a take; as a context, its files are in the folder when the block ends well."""
        return TakeWriter(
            {suffix: self._path(plan.index, suffix) for suffix in _SHOT_FILES},
            plan,
            fps=self.story.defaults.fps,
            size=self.story.defaults.size,
        )

    def latents(self, index: int) -> Float[np.ndarray, "batch frame row col chan"]:
        """Latents of a finished shot.

        Raises:
          FilmFolderError: the file is damaged.
        """
        path = self._path(index, "npz")
        try:
            with np.load(path) as stored:
                # A file that was cut short shows itself in any of these ways: no zip, no member, no
                # header, no end.
                return stored["latents"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise FilmFolderError(
                f"{path} is damaged ({error}); delete shot_{index + 1:02d}.* and those after it, "
                "and resume."
            ) from error

    def check(self, plan: ShotPlan) -> bool:
        """See that a finished shot is the one that the story asks for now.

        Returns:
          Whether it was filmed after other takes of earlier shots than those here now.

        Raises:
          FilmFolderError: it was filmed to another plan.
        """
        path = self._path(plan.index, "json")
        filmed = upgraded(json.loads(path.read_text(encoding="utf-8")), self.story)
        name, stale = difference(filmed, plan_document(plan))
        if name is None:
            return stale
        raise FilmFolderError(
            f"{path} was filmed with {name} {filmed.get(name)!r} and the story says "
            f"{plan_document(plan)[name]!r}; `--only {plan.index + 1}` films this shot again, "
            f"`--from {plan.index + 1}` the later ones too, and another folder a new film."
        )

    def put_aside(self, index: int) -> None:
        """Move a shot's files to `takes/`, numbered by its take; the shot is then missing.

        The plan is moved first: a shot without it counts as missing, whatever else is there.
        """
        # Plans of release 0.1 name no take: theirs is take 0.
        plan = json.loads(self._path(index, "json").read_text(encoding="utf-8"))
        takes = self.folder / TAKES
        takes.mkdir(exist_ok=True)
        for suffix in _SHOT_FILES:
            path = self._path(index, suffix)
            path.replace(takes / f"{path.stem}_take_{plan.get('take', 0)}.{suffix}")

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Join the shots, draw the contact sheet and write the manifest with `facts` in it."""
        shots = range(len(self.story.shots))
        concatenate([self._path(k, "mp4") for k in shots], self.folder / FILM)
        sheet = contact_sheet(list(self._rows()), title=self.story.title, badge=self.badge)
        save_png(sheet, self.folder / CONTACT)
        files = [self._path(k, "mp4").name for k in shots]
        self._write_manifest({"complete": True, "shots": files, **facts})

    def begin(self) -> None:
        """Write the story and an unfinished manifest."""
        with atomic_file(self.folder / STORY) as path:
            path.write_text(dump_story(self.story), encoding="utf-8")
        self._write_manifest({"complete": False})

    def _rows(self) -> Iterator[ContactRow]:
        for k, shot in enumerate(self.story.shots):
            yield ContactRow.of_film(
                read_video(self._path(k, "mp4")),
                label=shot.id or str(k + 1),
                caption=shot.caption,
                seed=self.story.defaults.seed if shot.seed is None else shot.seed,
            )

    def _write_manifest(self, facts: Mapping[str, Any]) -> None:
        whose = {"title": self.story.title, "model_digest": self.model, "badge": self.badge}
        text = json.dumps({**whose, **facts}, indent=2, ensure_ascii=False) + "\n"
        with atomic_file(self.folder / MANIFEST) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _path(self, index: int, suffix: str) -> pathlib.Path:
        return _shot_path(self.folder, index, suffix)


def missing_shots(folder: pathlib.Path, count: int) -> tuple[int, ...]:
    """Places, of `count` shots, of those that are not complete in a folder."""
    return tuple(k for k in range(count) if not _shot_path(folder, k, "json").is_file())


def _shot_path(folder: pathlib.Path, index: int, suffix: str) -> pathlib.Path:
    return folder / f"shot_{index + 1:02d}.{suffix}"


def clear_film(folder: pathlib.Path) -> None:
    """Remove a film that was made here before, and nothing that is not part of one."""
    # Without a manifest these files are not known to be a film's: nothing is removed.
    if not (folder / MANIFEST).is_file():
        return
    for pattern in (*(f"shot_*.{suffix}" for suffix in _SHOT_FILES), FILM, CONTACT, STORY):
        for path in folder.glob(pattern):
            path.unlink()
    if (folder / TAKES).is_dir():
        for suffix in _SHOT_FILES:
            for path in (folder / TAKES).glob(f"shot_*_take_*.{suffix}"):
                path.unlink()
        if not any((folder / TAKES).iterdir()):
            (folder / TAKES).rmdir()
    # Last, so that a removal that was interrupted can be taken up again.
    (folder / MANIFEST).unlink()


def refuse_folder(folder: pathlib.Path, *, resume: bool = False) -> None:
    """See, before any work is done, that a folder can take a film.

    Raises:
      FilmFolderError: something is in it, and it is not a film to be resumed.
      OSError: it cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A folder may be there and not be writable; its permission bits do not tell on all file
    # systems.
    probe = folder / ".probe"
    probe.touch()
    probe.unlink()
    present = sorted(path.name for path in folder.iterdir())
    begun = MANIFEST in present
    if not present or (begun and resume):
        return
    advice = "a film was begun there: add --resume to finish it, or --overwrite to film anew"
    raise FilmFolderError(
        f"{folder} is not empty ({', '.join(present[:3])}{', ...' if present[3:] else ''}); "
        f"{advice if begun else 'give an empty or new folder'}."
    )


def open_film(
    folder: pathlib.Path, story: Story, *, model: str, badge: str = "", resume: bool = False
) -> FilmFolder:
    """Open an empty or new folder for a film, or, to resume, the one that it was begun in.

    Raises:
      FilmFolderError: a folder with other things in it, or begun with another model.
      OSError: a folder that cannot be made or written.
    """
    refuse_folder(folder, resume=resume)
    film = FilmFolder(folder=folder, story=story, model=model, badge=badge)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        film.begin()
        return film
    begun = json.loads(manifest.read_text(encoding="utf-8")).get("model_digest")
    if begun != model:
        raise FilmFolderError(
            f"{folder} was begun with model {begun} and this is {model}; film into another "
            "folder, or give the model it was begun with."
        )
    return film


def with_takes(story: Story, folder: pathlib.Path) -> tuple[Story, tuple[int, ...]]:
    """The story with those takes and seeds that shots of a folder were filmed again with.

    A take that the story itself names stands.

    Returns:
      The story, and the places of the shots that were changed.
    """
    path = folder / STORY
    if not path.is_file():
        return story, ()
    filmed = {shot.id: shot for shot in load_story(path).resolved().shots}
    shots, changed = list(story.shots), []
    for place, shot in enumerate(shots):
        there = filmed.get(story.shot_id(place))
        # Takes were counted up in the folder's story by `--only` and `--from`; the author's file
        # knows nothing of them, and without this --resume would see other plans than those filmed.
        if shot.take is None and there is not None and there.take:
            shots[place] = dataclasses.replace(shot, take=there.take, seed=there.seed)
            changed.append(place)
    return dataclasses.replace(story, shots=tuple(shots)), tuple(changed)


def retaken(story: Story, places: Sequence[int], seeds: Mapping[int, int | None]) -> Story:
    """The story with the next take of some shots; `seeds` are other seeds for some of them."""
    shots = list(story.shots)
    for place in places:
        shot, seed = shots[place], seeds.get(place)
        shots[place] = dataclasses.replace(
            shot, take=(shot.take or 0) + 1, seed=shot.seed if seed is None else seed
        )
    return dataclasses.replace(story, shots=tuple(shots))
