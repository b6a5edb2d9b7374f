"""Atomic files and folders: under their name stands the complete content, or what was there before.

    .film.mp4.k3x9.part/film.mp4   written here, on the same file system as its destination
    film.mp4                       renamed to when complete and on the disk

The temporary folder has a name that nothing else has and is readable by its owner alone, so that
neither a second writer nor a symbolic link planted under a known name can stand in the way. Its
lock tells a running writer from a killed one, whose remains the next writer of the same name
removes.
"""

import contextlib
import errno
import fcntl
import glob
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SUFFIX = ".part"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")


class DiskFullError(OSError):
    """A file or folder has no room; the message holds the bytes it takes and the bytes free."""


@contextlib.contextmanager
def atomic_file(path: pathlib.Path, *, needed: int = 0) -> Iterator[pathlib.Path]:
    """A path to write a file to, which replaces `path` when the block ends well.

    A symbolic link at `path` is itself replaced; the file that it points to is not written.

    Args:
      path: the file to make, in a folder that is made if missing.
      needed: bytes the file is known to take, refused before any work if they are not free.

    Raises:
      DiskFullError: no room, with how much is needed and how much is free.
    """
    with _temporary(path, needed) as partial:
        yield partial
        # The content first, then the name: a power cut must not leave the name of an empty file.
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)


@contextlib.contextmanager
def atomic_folder(path: pathlib.Path, *, needed: int = 0) -> Iterator[pathlib.Path]:
    """An empty folder to fill, which becomes `path` when the block ends well.

    Args:
      path: the folder to make, in a folder that is made if missing.
      needed: bytes its files are known to take, refused before any work if they are not free.

    Raises:
      FileExistsError: something is at `path` already.
      DiskFullError: no room, with how much is needed and how much is free.
    """
    # `exists` is False for a symbolic link that points nowhere.
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path} exists already; remove it or choose another place.")
    with _temporary(path, needed) as partial:
        partial.mkdir()
        yield partial
        for inner in (*partial.rglob("*"), partial):
            _sync(inner)
        partial.rename(path)
        _sync(path.parent)


@contextlib.contextmanager
def _temporary(path: pathlib.Path, needed: int) -> Iterator[pathlib.Path]:
    """A path named like `path` in a locked temporary folder beside it, removed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    folder = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    lock = os.open(folder, os.O_RDONLY)
    try:
        # Named as a temporary folder only once it is locked: another writer that finds it in
        # between would take it for one whose writer was killed.
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        folder = folder.rename(folder.with_name(folder.name + _SUFFIX))
        if needed > shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield folder / path.name
    except OSError as error:
        if error.errno not in _DISK_FULL or isinstance(error, DiskFullError):
            raise
        raise _disk_full(error.errno, path, folder, needed) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_abandoned(path: pathlib.Path) -> None:
    """Remove temporary folders for `path` whose writers were killed: nothing holds their lock."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*{_SUFFIX}"):
        # Its writer may finish and remove it at any moment, or the folder may be another user's.
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)


def local_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """A path on this machine's file systems, colons and brackets in its names included.

    Raises:
      ValueError: an address such as `gs://bucket/film`, of which a folder `gs:` would be made.
    """
    named = os.fspath(path)
    # A scheme has two letters or more, a drive of Windows one.
    if _ADDRESS.match(named):
        # `pathlib` made one slash of two.
        address = _ADDRESS.sub(lambda found: found[0].rstrip("/") + "//", named, count=1)
        raise ValueError(
            f"{address} is an address, and films go into a folder of this machine; film into one, "
            "and copy it there when it is done."
        )
    return pathlib.Path(named)


def _sync(path: pathlib.Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_full(code: int, path: pathlib.Path, folder: pathlib.Path, needed: int) -> DiskFullError:
    written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    # What was written is about to be removed, and counts as free.
    free = shutil.disk_usage(folder).free + written
    return DiskFullError(
        code,
        f"{os.strerror(code)}: {path.name} takes more than {max(needed, written):,} bytes and "
        f"{path.parent} has {free:,} free; make room and repeat, finished files are untouched",
        str(path),
    )
