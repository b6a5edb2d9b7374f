"""Files of finished shots, read as those of a stranger: bounded, and checked before use.

A film folder may have been fetched from elsewhere, or be damaged. Sizes are compared before memory
is asked for, nothing is unpickled, and what a shot's plan says of its files must hold.
"""

import hashlib
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib import format as npy

from shotstream_jax.directing.folder_contents import FilmFolderError
from shotstream_jax.files import atomic_file
from shotstream_jax.strict_json import brief, load_object
from shotstream_jax.typing import TakeLatents

# A plan has six context frames with a caption each, a manifest a line a shot: some kilobytes.
_LARGEST_JSON = 4 << 20
# Of an array in an npz: shape, type and order in text. NumPy's own bound is 10,000.
_LARGEST_HEADER = 1000
_ARRAY = "latents.npy"
_ENCRYPTED = 1  # bit of a zip member's flags
_PIECE = 1 << 20
# A digest of 64 characters, with what is approximate behind it.
_LONGEST_SHOWN = 200


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object in a file of a film folder.

    Raises:
      FilmFolderError: it is too long, damaged, or no object.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST_JSON:
            raise ValueError(f"{path} has {size:,} bytes; at most {_LARGEST_JSON:,} are read.")
        return load_object(path)
    except (OSError, ValueError) as error:
        raise FilmFolderError(f"{path} cannot be read: {error}") from error


def file_facts(path: pathlib.Path) -> dict[str, Any]:
    """Length and checksum of a file, as a plan on disk holds them."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def check_file(path: pathlib.Path, facts: object) -> None:
    """See that a file is the one that was written with a shot.

    Raises:
      FilmFolderError: it is not there, or is another one.
    """
    if not path.is_file() or path.is_symlink():
        raise FilmFolderError(f"{path} is not there")
    if not isinstance(facts, dict):
        return  # of release 0.1, which kept no checksums
    # The length first: of a file that was cut short it says more than two checksums.
    size = path.stat().st_size
    if size != facts.get("bytes"):
        raise FilmFolderError(f"{path} has {size} bytes and was written with {facts.get('bytes')}")
    if file_facts(path) != facts:
        raise FilmFolderError(f"{path} is damaged or another file: its checksum is not the shot's")


def write_latents(path: pathlib.Path, latents: TakeLatents) -> None:
    """Write the latents of a shot.

    Raises:
      OSError: no room.
    """
    with atomic_file(path, needed=latents.nbytes) as temporary, temporary.open("wb") as file:
        # Through a file object: given a path, NumPy adds a suffix of its own.
        np.savez(file, latents=latents)


def read_latents(path: pathlib.Path, shape: tuple[int, ...]) -> TakeLatents:
    """Latents of a finished shot, which must be finite float32 of the shape that its plan gives.

    Raises:
      FilmFolderError: they are not.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_array(archive, shape)
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError) as error:
        raise FilmFolderError(f"{path} is damaged ({error})") from error
    except zipfile.BadZipFile as error:
        raise FilmFolderError(f"{path} is damaged ({error})") from error


def _read_array(archive: zipfile.ZipFile, shape: tuple[int, ...]) -> TakeLatents:
    if archive.namelist() != [_ARRAY]:
        raise ValueError(f"holds {brief(archive.namelist())} and not {_ARRAY} alone")
    member = archive.getinfo(_ARRAY)
    # Stored as NumPy writes it: a packed member could be of any length when unpacked.
    if member.flag_bits & _ENCRYPTED or member.compress_type != zipfile.ZIP_STORED:
        raise ValueError("its array is packed or encrypted, which is not how shots are written")
    with archive.open(member) as file:
        version = npy.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"its array is of format {version} and not (1, 0)")
        found, fortran, dtype = npy.read_array_header_1_0(file, max_header_size=_LARGEST_HEADER)
        if found != shape or dtype != np.float32 or fortran:
            raise ValueError(f"holds {dtype} {found} and the plan is of float32 {shape}")
        length = 4 * int(np.prod(shape))
        data = file.read(length + 1)
    if len(data) != length:
        raise ValueError(f"its array has {len(data)} bytes and must have {length}")
    latents = np.frombuffer(data, np.float32).reshape(shape)
    if not np.isfinite(latents).all():
        raise ValueError("its latents are not all finite")
    return latents


def refuse_other_format(
    folder: pathlib.Path, begun: Mapping[str, Any], asked: Mapping[str, Any]
) -> None:
    """See that a film is resumed in the format it was begun in.

    Args:
      folder: of the film.
      begun: its manifest; release 0.1 wrote fewer facts, and those it lacks are not compared.
      asked: what the story and the model are now, under the same names.

    Raises:
      FilmFolderError: a fact that differs, with both values.
    """
    for name, value in asked.items():
        if name in begun and begun[name] != value:
            raise FilmFolderError(
                f"{folder} was begun with {name} {_shown(begun[name])} and this is {value}; "
                "film into another folder, or resume with what it was begun with."
            )


def _shown(value: object) -> str:
    """A value of a manifest as an error shows it: a digest whole, and nothing that floods."""
    return str(value)[:_LONGEST_SHOWN]
