"""Safetensors files: read one tensor at a time, written one tensor at a time.

Source: public safetensors repository, README.md, Format.
"""

import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from shotstream_jax.checkpoints.tensors import LazyArray, Tensors
from shotstream_jax.files import atomic_file

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
_METADATA = "__metadata__"
# The header's length comes first, as a little-endian 64-bit integer.
_LENGTH_BYTES = 8
# The 14B transformer's header has 150 KB; a hundred times that is no file of weights.
_LARGEST_HEADER = 1 << 24
# NumPy's own limit is 64; tensors of these networks have 5 axes at most.
_MOST_AXES = 16
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def read_safetensors(path: pathlib.Path) -> dict[str, LazyArray]:
    """Open a safetensors file.

    Raises:
      ValueError: a damaged file, or a dtype that is not read here.
    """
    start, header = _header(path)
    header.pop(_METADATA, None)
    tensors, ends = {}, [0]
    for name, entry in header.items():
        code, shape, (begin, end) = _entry(path, name, entry)
        if code not in _DTYPES:
            raise ValueError(
                f"{path} holds {name} as {code}, which is not read here; "
                f"save it as one of {', '.join(_DTYPES)}."
            )
        dtype = _DTYPES[code]
        if end - begin != dtype.itemsize * math.prod(shape):
            raise _damaged(path, f"{name} of shape {list(shape)} has {end - begin} bytes")
        tensors[name] = LazyArray(shape, dtype, _reader(path, start + begin, shape, dtype))
        ends.append(end)
    size = path.stat().st_size
    # Without holes or overlaps, as the format demands, so that the file's size bounds everything.
    held = sum(t.dtype.itemsize * math.prod(t.shape) for t in tensors.values())
    if not start + max(ends) == start + held == size:
        raise _damaged(path, f"it has {size} bytes where its header describes {start + held}")
    return tensors


def read_metadata_of(path: pathlib.Path) -> dict[str, str]:
    """The texts in the header of a safetensors file.

    Raises:
      ValueError: a damaged file.
    """
    metadata = _header(path)[1].get(_METADATA) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _damaged(path, "its metadata are no texts")
    return metadata


def write_safetensors(path: pathlib.Path, tensors: Tensors) -> None:
    """Write tensors in the order given, holding one at a time; the file appears when complete.

    Raises:
      ValueError: a dtype that is not written here.
    """
    # transformers refuses a file whose metadata does not name a framework; "pt" is torch's.
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _CODES:
            known = ", ".join(map(str, _CODES))
            raise ValueError(f"{name} is {tensor.dtype}, not written; cast it to one of {known}.")
        start, end = end, end + tensor.dtype.itemsize * int(np.prod(tensor.shape))
        header[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": (start, end),
        }
    encoded = json.dumps(header, separators=(",", ":")).encode()
    # The format wants values to begin at a multiple of 8 bytes; spaces are legal after JSON.
    encoded += b" " * (-len(encoded) % 8)
    with atomic_file(path) as partial, partial.open("wb") as file:
        # The header's length comes first, as a little-endian 64-bit integer.
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)


def _header(path: pathlib.Path) -> tuple[int, dict[str, Any]]:
    """Where values begin, and what the header says.

    Raises:
      ValueError: a header that is damaged or of an absurd size.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        room = path.stat().st_size - _LENGTH_BYTES
        if not 0 < length <= min(room, _LARGEST_HEADER):
            raise _damaged(
                path,
                f"a header of {length} bytes in a file of {room + _LENGTH_BYTES}, "
                f"of which at most {_LARGEST_HEADER} are read",
            )
        content = file.read(length)
    try:
        header = json.loads(content, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no object")
    return _LENGTH_BYTES + length, header


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _entry(path: pathlib.Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], list[int]]:
    """Dtype, shape and byte range of a tensor; numbers below 2^63, as indices are."""
    try:
        code, shape, place = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        begin, end = place
    except (TypeError, KeyError, ValueError) as error:
        raise _damaged(path, f"{name} is described wrongly ({error})") from error
    numbers = (*shape, begin, end)
    natural = all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
    if not natural or begin > end or len(shape) > _MOST_AXES or not isinstance(code, str):
        raise _damaged(path, f"{name} has a size or a place that is none")
    return code, shape, [begin, end]


def _reader(
    path: pathlib.Path, start: int, shape: tuple[int, ...], dtype: np.dtype
) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        if 0 in shape:
            return np.zeros(shape, dtype)  # an empty range cannot be mapped
        size = dtype.itemsize * math.prod(shape)
        mapped = np.memmap(path, np.uint8, mode="r", offset=start, shape=(size,))
        return mapped.view(dtype).reshape(shape)

    return read


def _damaged(path: pathlib.Path, why: str) -> ValueError:
    return ValueError(f"{path} is damaged ({why}); fetch it again.")
