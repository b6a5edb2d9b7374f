"""Torch's zip files, read without torch: memory-mapped, checked, and never executed.

The container is an uncompressed zip: `<root>/data.pkl` describes the tensors and `<root>/data/<n>`
holds their values. The pickle is read by `pickle_reader.py`, which builds dicts of descriptions of
tensors and nothing else.

Source: public PyTorch repository, torch/serialization.py, _save and _load.
"""

import pathlib
import struct
import zipfile
import zlib
from typing import Any

import ml_dtypes
import numpy as np

from shotstream_jax.checkpoints.pickle_reader import ForbiddenGlobalError, Strided, read_pickle
from shotstream_jax.checkpoints.tensors import LazyArray

DTYPES = {
    "FloatStorage": np.dtype(np.float32),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "HalfStorage": np.dtype(np.float16),
    "DoubleStorage": np.dtype(np.float64),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
"""Dtype of each of torch's storage classes."""

# Torch has no storage class for 8-bit floats: such a tensor names its dtype and bytes without one.
_UNTYPED = "UntypedStorage"
_NAMED_DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
}
_KINDS = {**DTYPES, **_NAMED_DTYPES, _UNTYPED: np.dtype(np.uint8)}

# Releases nest three deep ({"generator": {"model": ...}}). The limits end a pickle whose dicts hold
# themselves, or hold each other many times over.
_MAX_DEPTH, _MOST_DICTS, _LONGEST_NAME = 16, 100_000, 1000
# Torch before 1.6 wrote bare pickles, which begin with the opcode for a protocol number.
_LEGACY_START = b"\x80"
# Of a zip member's own header only the signature and the lengths of name and extra field matter:
# they say where its bytes begin. Everything else is repeated, reliably, in the central directory.
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def read_torch(path: pathlib.Path) -> dict[str, LazyArray]:
    """Open a torch file; nested dicts become dotted names, and all but tensors is left out.

    Raises:
      ValueError: a file that is no torch zip, is damaged, or names a forbidden global.
    """
    archive = _Archive(path)
    if archive.has("byteorder") and archive.read("byteorder").tobytes() != b"little":
        raise ValueError(
            f"{path} was saved on a big-endian machine; save it on a little-endian one."
        )
    try:
        content = read_pickle(archive.read("data.pkl").tobytes(), _KINDS)
    except ForbiddenGlobalError as error:
        raise ForbiddenGlobalError(
            f"{path} {error}, and a file of weights has no use for it; nothing was executed. "
            "Save the tensors alone, as safetensors or as a plain dict, if you trust its source."
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} describes no tensors ({error}); fetch it again.") from error
    return _Names(archive).collect(content)


class _Archive:
    """Members of an uncompressed zip file, as checked views of its bytes."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise ValueError(_not_a_zip(path)) from error
        roots = [info.filename for info in members if info.filename.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError(f"{path} is a zip file but not one of torch's; it has no data.pkl.")
        root = roots[0].removesuffix("data.pkl")
        self._members = {info.filename.removeprefix(root): info for info in members}
        self._size = path.stat().st_size
        self._checked: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self._members

    def read(self, name: str) -> np.ndarray:
        """Bytes of a member; its checksum is compared the first time."""
        info = self._members.get(name)
        if info is None:
            raise ValueError(f"{self._path} has no member {name}; fetch it again.")
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{self._path} is compressed; unpack it, or torch.save it again.")
        header = self._map(info, info.header_offset, _LOCAL_HEADER.size).tobytes()
        signature, *lengths = _LOCAL_HEADER.unpack(header)
        start = info.header_offset + _LOCAL_HEADER.size + sum(lengths)
        content = self._map(info, start, info.file_size)
        # Once a file: layers of one storage are read many times, and a CRC reads all of its bytes.
        is_new = name not in self._checked
        if signature != b"PK\x03\x04" or (is_new and zlib.crc32(content.data) != info.CRC):
            raise ValueError(self._damaged(info))
        self._checked.add(name)
        return content

    def tensor(self, strided: Strided) -> LazyArray:
        """A tensor of the file.

        Raises:
          ValueError: one that reaches beyond its storage.
        """
        storage, offset, shape, strides, named = strided
        dtype, length = _KINDS[storage.kind], storage.length
        if storage.kind == _UNTYPED and named in _NAMED_DTYPES:
            # The storage counts bytes, the tensor's offset and strides elements.
            dtype = _NAMED_DTYPES[named]
            length //= dtype.itemsize
        # Sizes come from the pickle and are not trusted: strides beyond the bytes there are would
        # read other memory of this process.
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        empty = 0 in shape
        info = self._members.get(f"data/{storage.key}")
        # The shorter of what the pickle claims and what the file holds counts.
        held = 0 if info is None else info.file_size // dtype.itemsize
        if not empty and last >= min(length, held):
            raise ValueError(
                f"{self._path} has a tensor of shape {shape} that ends at element {last} of "
                f"storage {storage.key}, which holds {min(length, held)}; fetch it again."
            )

        def read() -> np.ndarray:
            if empty:
                return np.zeros(shape, dtype)
            values = self.read(f"data/{storage.key}")[: held * dtype.itemsize].view(dtype)
            steps = [step * dtype.itemsize for step in strides]
            return np.lib.stride_tricks.as_strided(values[offset:], shape, steps, writeable=False)

        return LazyArray(shape, dtype, read)

    def _map(self, info: zipfile.ZipInfo, start: int, size: int) -> np.ndarray:
        """Bytes of the file, mapped for as long as the result lives."""
        if not 0 <= start <= self._size - size:
            raise ValueError(self._damaged(info))
        if size == 0:
            return np.zeros(0, np.uint8)  # an empty range cannot be mapped
        return np.memmap(self._path, np.uint8, mode="r", offset=start, shape=(size,))

    def _damaged(self, info: zipfile.ZipInfo) -> str:
        return f"{self._path} is damaged in member {info.filename}; fetch it again."


class _Names:
    """Collects the tensors of nested dicts by dotted name."""

    def __init__(self, archive: _Archive):
        self._archive = archive
        self._tensors: dict[str, LazyArray] = {}
        self._dicts = 0

    def collect(self, content: Any) -> dict[str, LazyArray]:
        """All tensors; other values, and whatever is in lists, are left out."""
        self._add(content, "", 0)
        return self._tensors

    def _add(self, node: Any, name: str, depth: int) -> None:
        if isinstance(node, Strided):
            if name in self._tensors:
                raise ValueError(
                    f"Two tensors are named {name}; rename one and save the file again."
                )
            self._tensors[name] = self._archive.tensor(node)
        elif isinstance(node, dict):
            self._check(name, depth)
            for key, value in node.items():
                self._add(value, f"{name}.{key}" if name else str(key), depth + 1)

    def _check(self, name: str, depth: int) -> None:
        if depth == _MAX_DEPTH or len(name) > _LONGEST_NAME:
            raise ValueError(
                f"{name[:80]} nests more than {_MAX_DEPTH} dicts, or has a name longer than "
                f"{_LONGEST_NAME}; save the tensors alone."
            )
        # One dict may be there under two names; a tower of such dicts never ends.
        self._dicts += 1
        if self._dicts > _MOST_DICTS:
            raise ValueError(
                f"{name[:80]} is past {_MOST_DICTS} dicts, each counted as often as it is referred "
                "to; save the tensors alone."
            )


def _not_a_zip(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_LEGACY_START):
        return (
            f"{path} is in torch's old format from before 1.6, which is not read here; "
            "open it with torch and torch.save it again."
        )
    if start == b"PK\x03\x04":
        return f"{path} ends too early ({path.stat().st_size} bytes); fetch it again."
    return f"{path} is not a torch file (it starts with {start!r}); fetch it again."
