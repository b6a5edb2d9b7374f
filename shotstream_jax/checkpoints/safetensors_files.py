"""Safetensors files: read one tensor at a time, written one tensor at a time.

Source: public safetensors repository, README.md, Format.
"""

import json
import pathlib

import ml_dtypes
import numpy as np
import safetensors

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
}
# 8-bit floats and wide unsigned integers are left out: no file of these networks has them.
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def read_safetensors(path: pathlib.Path) -> dict[str, LazyArray]:
    """Open a safetensors file.

    Raises:
      ValueError: a damaged file, or a dtype that is not read here.
    """
    try:
        file = safetensors.safe_open(path, framework="numpy")
        return {name: _tensor(path, file, name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); fetch it again.") from error


def read_metadata_of(path: pathlib.Path) -> dict[str, str]:
    """The texts in the header of a safetensors file.

    Raises:
      ValueError: a damaged file.
    """
    try:
        return safetensors.safe_open(path, framework="numpy").metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); fetch it again.") from error


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


def _tensor(path: pathlib.Path, file: safetensors.safe_open, name: str) -> LazyArray:
    # A slice knows shape and dtype without reading values.
    piece = file.get_slice(name)
    code = piece.get_dtype()
    if code not in _DTYPES:
        raise ValueError(
            f"{path} holds {name} as {code}, which is not read here; "
            f"save it as one of {', '.join(_DTYPES)}."
        )
    return LazyArray(tuple(piece.get_shape()), _DTYPES[code], lambda: file.get_tensor(name))
