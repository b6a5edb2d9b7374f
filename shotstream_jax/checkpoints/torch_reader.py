"""Torch's zip files, read without torch: memory-mapped, checked, and never executed.

The container is an uncompressed zip: `<root>/data.pkl` describes the tensors and `<root>/data/<n>`
holds their values. The pickle may name the few globals listed here and nothing else; all objects
that it can build with them are immutable tuples, strings and plain dicts.

Source: public PyTorch repository, torch/serialization.py, _save and _load.
"""

import collections
import io
import pathlib
import pickle
import struct
import zipfile
import zlib
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

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

# Releases nest three deep ({"generator": {"model": ...}}). The limit ends a pickle that refers to
# itself before Python's stack does.
_MAX_DEPTH = 16
# Torch before 1.6 wrote bare pickles, which begin with the opcode for a protocol number.
_LEGACY_START = b"\x80"
# Of a zip member's own header only the signature and the lengths of name and extra field matter:
# they say where its bytes begin. Everything else is repeated, reliably, in the central directory.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
# All that the standard unpickler raises where its opcodes or their arguments are nonsense.
_MALFORMED = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)


class ForbiddenGlobalError(ValueError):
    """A pickle names a global that weights do not need."""


class _Storage(NamedTuple):
    dtype: str
    key: str
    length: int


class _Strided(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


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
        content = _Unpickler(io.BytesIO(archive.read("data.pkl").tobytes())).load()
    except ForbiddenGlobalError as error:
        raise ForbiddenGlobalError(
            f"{path} {error}, and a file of weights has no use for it; nothing was executed. "
            "Save the tensors alone, as safetensors or as a plain dict, if you trust its source."
        ) from None
    except _MALFORMED as error:
        raise ValueError(f"{path} describes no tensors ({error}); fetch it again.") from error
    tensors: dict[str, LazyArray] = {}
    _flatten(content, "", tensors, archive)
    return tensors


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

    def tensor(self, strided: _Strided) -> LazyArray:
        """A tensor of the file.

        Raises:
          ValueError: one that reaches beyond its storage.
        """
        storage, offset, shape, strides = strided
        dtype = DTYPES[storage.dtype]
        # Sizes come from the pickle and are not trusted: strides beyond the bytes there are would
        # read other memory of this process.
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        empty = 0 in shape
        info = self._members.get(f"data/{storage.key}")
        # The shorter of what the pickle claims and what the file holds counts.
        held = 0 if info is None else info.file_size // dtype.itemsize
        if not empty and last >= min(storage.length, held):
            raise ValueError(
                f"{self._path} has a tensor of shape {shape} that ends at element {last} of "
                f"storage {storage.key}, which holds {min(storage.length, held)}; fetch it again."
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


class _Unpickler(pickle.Unpickler):
    """An unpickler that can build dicts of tensor descriptions and nothing more."""

    def find_class(self, module: str, name: str) -> Any:
        # Storage classes are only ever arguments of a persistent id: their name is enough.
        if module == "torch" and name in DTYPES:
            return name
        match module, name:
            # A bound call, unlike a function, has no attribute that a pickle could set.
            case "torch._utils", "_rebuild_tensor_v2":
                return _strided.__call__
            case "torch._utils", "_rebuild_parameter":
                return _parameter.__call__
            case "torch", "Size":
                return tuple
            case "collections", "OrderedDict":
                return collections.OrderedDict
        raise ForbiddenGlobalError(f"asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        # The one left out is the device that the tensor was on when it was saved.
        kind, dtype, key, _, length = pid
        if kind != "storage" or dtype not in DTYPES or not isinstance(key, str):
            raise pickle.UnpicklingError("a storage of unknown kind")
        return _Storage(dtype, key, _natural(length))


def _strided(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Strided:
    # A pickle may call this with anything; what is not a storage and natural numbers ends here.
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise pickle.UnpicklingError("a tensor without storage or strides")
    return _Strided(
        storage, _natural(offset), tuple(map(_natural, shape)), tuple(map(_natural, strides))
    )


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _natural(number: Any) -> int:
    if not isinstance(number, int) or number < 0:
        raise pickle.UnpicklingError(f"a size of {number!r}")
    return number


def _flatten(
    node: Any, name: str, tensors: dict[str, LazyArray], archive: _Archive, depth: int = 0
) -> None:
    if isinstance(node, _Strided):
        if name in tensors:
            raise ValueError(f"Two tensors are named {name}; rename one and save the file again.")
        tensors[name] = archive.tensor(node)
    elif isinstance(node, dict):
        if depth == _MAX_DEPTH:
            raise ValueError(f"{name} nests more than {_MAX_DEPTH} dicts; save the tensors alone.")
        for key, value in node.items():
            _flatten(value, f"{name}.{key}" if name else str(key), tensors, archive, depth + 1)


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
