"""Sizes and checksums of a checkpoint's files, written with it and verified before it is read.

CRC-32 finds damage: cut downloads, bad disks, files of another checkpoint. Against tampering no
checksum would help that lies in the same folder, so a slower, cryptographic one gains nothing.
"""

import json
import pathlib
import zlib
from collections.abc import Iterator
from concurrent import futures

CHECKSUM_FILE = "files.json"
# 16 MiB a thread: large enough that reading, not Python, takes the time, and nothing beside a
# model.
_PIECE = 1 << 24
"""Bytes that are read at once."""


def write_checksums(folder: pathlib.Path) -> None:
    """List every file of a folder with its size and CRC-32 in `files.json`."""
    files = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    # zlib releases the interpreter's lock, so threads check files side by side.
    with futures.ThreadPoolExecutor() as pool:
        checksums = list(pool.map(_checksum, files.values()))
    listed = {
        name: {"bytes": path.stat().st_size, "crc32": checksum}
        for (name, path), checksum in zip(files.items(), checksums, strict=True)
    }
    (folder / CHECKSUM_FILE).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def verify(folder: pathlib.Path, part: str, checked_bytes: int | None = None) -> None:
    """Compare the file or folder `part` of a folder with the sizes and checksums that it lists.

    With `checked_bytes`, only the size of larger files is compared, not their content.

    Raises:
      ValueError: a file is missing, of another size, or of other content.
    """
    listed = _read(folder)
    names = [name for name in listed if name == part or name.startswith(f"{part}/")]
    if not names:
        raise ValueError(
            f"{folder / CHECKSUM_FILE} lists no file of {part}; convert or fetch it again."
        )
    # Sizes first: a missing file is reported before gigabytes are read.
    for name in names:
        _check_size(folder / name, listed[name]["bytes"], part)
    read = [n for n in names if checked_bytes is None or listed[n]["bytes"] <= checked_bytes]
    with futures.ThreadPoolExecutor() as pool:
        checksums = pool.map(_checksum, [folder / name for name in read])
        for name, checksum in zip(read, checksums, strict=True):
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
    path = folder / CHECKSUM_FILE
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
    # Sorted, so that the same folder always gives the same list.
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _checksum(path: pathlib.Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            checksum = zlib.crc32(piece, checksum)
    return checksum
