"""Whether a folder still holds what was written into it: sizes and checksums of its files."""

import json
import pathlib
import zlib
from collections.abc import Iterator
from concurrent import futures

FILE = "files.json"
_PIECE = 1 << 24
"""Bytes that are read at once."""


def seal(folder: pathlib.Path) -> None:
    """List every file of a folder with its size and CRC-32 in `files.json`."""
    files = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    with futures.ThreadPoolExecutor() as pool:
        checksums = list(pool.map(_checksum, files.values()))
    listed = {
        name: {"bytes": path.stat().st_size, "crc32": checksum}
        for (name, path), checksum in zip(files.items(), checksums, strict=True)
    }
    (folder / FILE).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def verify(folder: pathlib.Path, part: str, checked_bytes: int | None = None) -> None:
    """Compare the files below `part` of a sealed folder with what was listed.

    With `checked_bytes`, the content of larger files is not looked at, only their size.

    Raises:
      ValueError: a file is missing, of another size, or of other content.
    """
    listed = _read(folder)
    names = [name for name in listed if name.startswith(f"{part}/")]
    if not names:
        raise ValueError(f"{folder / FILE} lists no file of {part}; convert or fetch it again.")
    for name in names:
        _check_size(folder / name, listed[name]["bytes"], part)
    looked_at = [n for n in names if checked_bytes is None or listed[n]["bytes"] <= checked_bytes]
    with futures.ThreadPoolExecutor() as pool:
        checksums = pool.map(_checksum, [folder / name for name in looked_at])
        for name, checksum in zip(looked_at, checksums, strict=True):
            if checksum != listed[name]["crc32"]:
                raise ValueError(
                    f"{folder / name} has checksum {checksum} where {listed[name]['crc32']} was "
                    f"written: it is damaged; convert or fetch {part} again."
                )


def _check_size(path: pathlib.Path, expected: int, part: str) -> None:
    found = path.stat().st_size if path.is_file() else None
    if found != expected:
        held = "is missing" if found is None else f"has {found} bytes"
        raise ValueError(
            f"{path} {held} where {expected} were written; convert or fetch {part} again."
        )


def _read(folder: pathlib.Path) -> dict[str, dict[str, int]]:
    path = folder / FILE
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: {key: int(entry[key]) for key in ("bytes", "crc32")}
            for name, entry in listed.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); convert or fetch {folder} again."
        ) from error


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _checksum(path: pathlib.Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            checksum = zlib.crc32(piece, checksum)
    return checksum
