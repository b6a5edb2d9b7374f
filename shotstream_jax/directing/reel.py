"""The folder a film is made in: every finished shot is on disk before the next one begins.

    shot_01.mp4 shot_01.npz shot_01.json   a shot: video, latents, plan (written last: it is done)
    story.yaml                             the story with every default written out
    film.mp4 contact.png                   the whole, when all shots are there
    manifest.json                          what made it: model, versions, seeds, timings

Shots count from 1 in file names, as people count. Every file is whole or not there.
"""

import contextlib
import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from shotstream_jax.directing.contact import ContactRow, contact_sheet, save_png
from shotstream_jax.directing.video import Mp4Writer, concatenate, read_video
from shotstream_jax.files import atomic_file
from shotstream_jax.rollout.stream import FilmedChunk
from shotstream_jax.story import ShotPlan, Story, dump_story
from shotstream_jax.typing import Float

_SHOT_FILES = ("json", "mp4", "npz")
MANIFEST, STORY, FILM, CONTACT = "manifest.json", "story.yaml", "film.mp4", "contact.png"


class ReelError(ValueError):
    """A folder that cannot take this film; nothing in it was changed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reel:
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

    def finished(self) -> int:
        """Shots, from the first one, that are complete on disk."""
        shots = range(len(self.story.shots))
        return next((k for k in shots if not self._path(k, "json").is_file()), len(shots))

    @contextlib.contextmanager
    def shooting(self, plan: ShotPlan) -> Iterator["Take"]:
        """Record a shot; it is in the folder when the block ends well, and not at all otherwise.

        Raises:
          OSError: no room; shots that were finished before are untouched.
        """
        take = Take(self._path(plan.index, "mp4"), self.story)
        with take.video:
            yield take
        latents = np.concatenate(take.latents, axis=1)
        npz = self._path(plan.index, "npz")
        # Through a file object: given a path, NumPy adds a suffix of its own.
        with atomic_file(npz, needed=latents.nbytes) as path, path.open("wb") as file:
            np.savez(file, latents=latents)
        self._write_json(self._path(plan.index, "json"), _plain(plan))

    def latents(self, index: int) -> Float[np.ndarray, "batch frame row col chan"]:
        """Latents of a finished shot.

        Raises:
          ReelError: the file is damaged.
        """
        path = self._path(index, "npz")
        try:
            with np.load(path) as stored:
                return stored["latents"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ReelError(
                f"{path} is damaged ({error}); delete shot_{index + 1:02d}.* and those after it, "
                "and resume."
            ) from error

    def check(self, plan: ShotPlan) -> None:
        """See that a finished shot is the one that the story asks for now.

        Raises:
          ReelError: it was filmed to another plan.
        """
        path = self._path(plan.index, "json")
        filmed, asked = json.loads(path.read_text(encoding="utf-8")), _plain(plan)
        for name in asked:
            if filmed.get(name) != asked[name]:
                raise ReelError(
                    f"{path} was filmed with {name} {filmed.get(name)!r} and the story says "
                    f"{asked[name]!r}; film into another folder, or delete shot_"
                    f"{plan.index + 1:02d}.* and those after it."
                )

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Join the shots, draw the contact sheet and write the manifest with `facts` in it."""
        shots = range(len(self.story.shots))
        concatenate([self._path(k, "mp4") for k in shots], self.folder / FILM)
        rows = [
            ContactRow(
                label=shot.id or str(k + 1),
                caption=shot.caption,
                seed=self.story.defaults.seed if shot.seed is None else shot.seed,
                frames=read_video(self._path(k, "mp4")),
            )
            for k, shot in enumerate(self.story.shots)
        ]
        sheet = contact_sheet(rows, title=self.story.title, badge=self.badge)
        save_png(sheet, self.folder / CONTACT)
        files = [self._path(k, "mp4").name for k in shots]
        self._write_manifest({"complete": True, "shots": files, **facts})

    def begin(self) -> None:
        """Write the story and an unfinished manifest."""
        with atomic_file(self.folder / STORY) as path:
            path.write_text(dump_story(self.story), encoding="utf-8")
        self._write_manifest({"complete": False})

    def _write_manifest(self, facts: Mapping[str, Any]) -> None:
        whose = {"title": self.story.title, "model_digest": self.model, "badge": self.badge}
        self._write_json(self.folder / MANIFEST, {**whose, **facts})

    def _write_json(self, path: pathlib.Path, document: Mapping[str, Any]) -> None:
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _path(self, index: int, suffix: str) -> pathlib.Path:
        return self.folder / f"shot_{index + 1:02d}.{suffix}"


class Take:
    """A shot that is being recorded."""

    def __init__(self, path: pathlib.Path, story: Story):
        """Open nothing yet."""
        self.latents: list[np.ndarray] = []
        self.video = Mp4Writer(path, fps=story.defaults.fps, size=story.defaults.size)

    def add(self, piece: FilmedChunk) -> int:
        """Append a chunk, waiting for it to exist; returns its video frames."""
        frames = np.asarray(piece.frames)
        self.video.write(frames)
        self.latents.append(np.asarray(piece.latents))
        return len(frames)


def clear_reel(folder: pathlib.Path) -> None:
    """Remove a film that was made here before, and nothing that is not part of one."""
    if not (folder / MANIFEST).is_file():
        return
    for pattern in (*(f"shot_*.{suffix}" for suffix in _SHOT_FILES), FILM, CONTACT, STORY):
        for path in folder.glob(pattern):
            path.unlink()
    (folder / MANIFEST).unlink()


def refuse_folder(folder: pathlib.Path, *, resume: bool = False) -> None:
    """See, before any work is done, that a folder can take a film.

    Raises:
      ReelError: something is in it, and it is not a film to be resumed.
      OSError: it cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".probe"
    probe.touch()
    probe.unlink()
    present = sorted(path.name for path in folder.iterdir())
    begun = MANIFEST in present
    if not present or (begun and resume):
        return
    advice = "a film was begun there: add --resume to finish it, or --overwrite to film anew"
    raise ReelError(
        f"{folder} is not empty ({', '.join(present[:3])}{', ...' if present[3:] else ''}); "
        f"{advice if begun else 'give an empty or new folder'}."
    )


def open_reel(
    folder: pathlib.Path, story: Story, *, model: str, badge: str = "", resume: bool = False
) -> Reel:
    """Open an empty or new folder for a film, or, to resume, the one that it was begun in.

    Raises:
      ReelError: a folder with other things in it, or begun with another model.
      OSError: a folder that cannot be made or written.
    """
    refuse_folder(folder, resume=resume)
    reel = Reel(folder=folder, story=story.resolved(), model=model, badge=badge)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        reel.begin()
        return reel
    begun = json.loads(manifest.read_text(encoding="utf-8")).get("model_digest")
    if begun != model:
        raise ReelError(
            f"{folder} was begun with model {begun} and this is {model}; film into another "
            "folder, or give the model it was begun with."
        )
    return reel


def _plain(plan: ShotPlan) -> dict[str, Any]:
    """A plan as JSON has it."""
    return json.loads(json.dumps(dataclasses.asdict(plan)))
