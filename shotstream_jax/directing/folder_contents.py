"""Which files of a folder are a film's; a lock on them; and a whole film moved aside and back.

    manifest.json story.yaml film.mp4 contact.png shot_NN.* takes/    a film's own files
    .shot_01.mp4.k3x9.part/                                          of a writer, perhaps killed
    .replacing/  .replaced/                                           the film before this one

Nothing else is ever touched. A film that is filmed over is moved to `.replacing`, which becomes
`.replaced` by one rename when all of it is there, and is removed when the new film is complete.
Where `.replacing` is found, or `.replaced` and no shot of a new film, the old film is moved back.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

# The plan first: files of a replaced take are moved in this order, and a shot without a plan counts
# as missing at every moment in between.
SHOT_FILES = ("json", "mp4", "npz")
MANIFEST, STORY, FILM, CONTACT, TAKES = (
    "manifest.json",
    "story.yaml",
    "film.mp4",
    "contact.png",
    "takes",
)
_REPLACING, _REPLACED = ".replacing", ".replaced"
_WHOLE = (MANIFEST, STORY, FILM, CONTACT)

# Digits alone: a person's own shot_notes.json is not a shot.
_SHOT = r"shot_\d{2,}\.(?:json|mp4|npz)"
_OWN = re.compile(rf"{'|'.join(map(re.escape, _WHOLE))}|{_SHOT}")
_TAKE = re.compile(r"shot_\d{2,}_take_\d+(?:_\d+)?\.(?:json|mp4|npz)")
# Release 0.1 left `.shot_03.mp4.part`; a folder is named without `.part` until it is locked.
_TEMPORARY = re.compile(rf"\.(?:{_OWN.pattern})\.[\w.]+")

# What flock says when another process has the lock; other errors mean that there are no locks.
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


class FilmFolderError(ValueError):
    """A folder that cannot take this film; nothing in it was changed."""


def shot_path(folder: pathlib.Path, index: int, suffix: str) -> pathlib.Path:
    """Where a file of a shot lies; `index` counts from 0, names from 1, as people count."""
    return folder / f"shot_{index + 1:02d}.{suffix}"


def missing_shots(folder: pathlib.Path, count: int) -> tuple[int, ...]:
    """Places, of `count` shots, of those that are not complete in a folder."""
    return tuple(k for k in range(count) if not shot_path(folder, k, "json").is_file())


def surplus_shots(folder: pathlib.Path, count: int) -> tuple[int, ...]:
    """Places of finished shots beyond the first `count`: those of a longer story."""
    places = (int(path.stem.removeprefix("shot_")) - 1 for path in _shots(folder))
    return tuple(sorted(place for place in places if place >= count))


def is_begun(folder: pathlib.Path) -> bool:
    """Whether a folder holds something of a film that a new film would replace."""
    return (folder / FILM).exists() or bool(_shots(folder)) or _has(folder, _REPLACED)


def check_folder(folder: pathlib.Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """See, before any work is done, that a folder can take a film; nothing in it changes.

    Raises:
      FilmFolderError: something is in it, and it is not a film to be resumed or replaced.
      OSError: it cannot be made or written.
    """
    existing = folder
    # The nearest folder that is there must be writable: the others will be made in it.
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise FilmFolderError(f"{existing} is a file; a film needs a folder, give another name.")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        # With the folder that was asked for, not the name of this file.
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error
    if existing != folder:
        return
    with _lock(folder):
        present = {path.name for path in folder.iterdir()}
    # A folder in the middle of being replaced is a film's, whatever has been moved so far.
    film = MANIFEST in present or bool(present & {_REPLACING, _REPLACED})
    foreign = sorted(name for name in present if not is_own(folder / name, film=film))
    if not film:
        if foreign:
            raise FilmFolderError(
                f"{folder} is not empty ({_listed(foreign)}) and holds no film; give an empty or "
                "new folder."
            )
        return
    if not (resume or overwrite) and is_begun(folder):
        raise FilmFolderError(
            f"{folder} is not empty ({_listed(sorted(present))}); a film was begun there: add "
            "--resume to finish it, or --overwrite to film anew (from Python, resume=True or "
            "overwrite=True)."
        )


def is_own(path: pathlib.Path, *, film: bool) -> bool:
    """Whether a file is part of a film; without a manifest only what a killed writer left is."""
    if _TEMPORARY.fullmatch(path.name):
        return True
    if not film:
        return False
    return (
        bool(_OWN.fullmatch(path.name))
        or path.name in (_REPLACING, _REPLACED)
        or (path.name == TAKES and not path.is_symlink())
    )


@contextlib.contextmanager
def claimed(folder: pathlib.Path) -> Iterator[None]:
    """Make a folder, keep other processes from filming there, and mend what a killed one left.

    A folder that was made here and stayed empty is removed again.

    Raises:
      FilmFolderError: another process films there.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _lock(folder):
            restore(folder)
            yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # it holds a film now
                folder.rmdir()


def set_aside(folder: pathlib.Path) -> None:
    """Move the film of a folder out of the way of another one, until `drop_replaced`.

    An unfinished film that was itself to replace one is removed: the one before it is kept.
    """
    own = [path for path in folder.iterdir() if _is_film_file(path)]
    if _has(folder, _REPLACED):
        for path in own:
            _remove(path)
        return
    replacing = folder / _REPLACING
    replacing.mkdir()
    for path in own:
        path.rename(replacing / path.name)
    replacing.rename(folder / _REPLACED)


def restore(folder: pathlib.Path) -> None:
    """Put a film back that was moved aside for one of which no shot was finished."""
    held = folder / _REPLACING
    if not _has(folder, _REPLACING):
        if not _has(folder, _REPLACED) or _shots(folder):
            return
        held = folder / _REPLACED
        # Back to the name that says "not all is there": this may be interrupted too.
        for path in folder.iterdir():
            if _is_film_file(path):
                _remove(path)
        held = held.rename(folder / _REPLACING)
    for path in held.iterdir():
        path.rename(folder / path.name)
    held.rmdir()


def drop_replaced(folder: pathlib.Path) -> None:
    """Remove the film that was moved aside: the one that replaces it is complete."""
    if _has(folder, _REPLACED):
        shutil.rmtree(folder / _REPLACED)


def put_aside(folder: pathlib.Path, index: int, take: int) -> None:
    """Move a shot's files to `takes/`, numbered by its take; the shot is then missing.

    The plan is moved first: a shot without it counts as missing, whatever else is there.

    Raises:
      FilmFolderError: `takes` is a link: what it points to is not part of this film.
    """
    takes = folder / TAKES
    if takes.is_symlink():
        raise FilmFolderError(f"{takes} is a link; replaced takes go into a folder of the film.")
    takes.mkdir(exist_ok=True)
    stem = f"{shot_path(folder, index, 'json').stem}_take_{take}"
    names, copies = [stem], 2
    # A story that was shortened twice has two takes of one number.
    while any((takes / f"{names[-1]}.{suffix}").exists() for suffix in SHOT_FILES):
        names.append(f"{stem}_{copies}")
        copies += 1
    for suffix in SHOT_FILES:
        path = shot_path(folder, index, suffix)
        if path.exists():
            path.replace(takes / f"{names[-1]}.{suffix}")


@contextlib.contextmanager
def _lock(folder: pathlib.Path) -> Iterator[None]:
    """Lock a folder against other processes; the lock ends with the process that holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise FilmFolderError(
                    f"Another process is filming in {folder}; wait until it is done, or give "
                    "another folder."
                ) from error
            # Some network file systems have no locks: filming there is the user's to coordinate.
        yield
    finally:
        os.close(descriptor)


def _shots(folder: pathlib.Path) -> list[pathlib.Path]:
    return [p for p in folder.glob("shot_*.json") if _OWN.fullmatch(p.name) and p.is_file()]


def _has(folder: pathlib.Path, name: str) -> bool:
    return (folder / name).is_dir() and not (folder / name).is_symlink()


def _is_film_file(path: pathlib.Path) -> bool:
    """Whether a path is part of the film that a folder holds now, and not of the one before it."""
    return is_own(path, film=True) and path.name not in (_REPLACING, _REPLACED)


def _remove(path: pathlib.Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    if path.name != TAKES:
        shutil.rmtree(path)  # a killed writer's temporary folder
        return
    for take in path.iterdir():
        if _TAKE.fullmatch(take.name):
            take.unlink()
    with contextlib.suppress(OSError):  # something of the user's own is in it
        path.rmdir()


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if names[3:] else ''}"
