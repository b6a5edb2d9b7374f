"""Torch's zip files, written without torch; `torch.load(weights_only=True)` reads them.

The pickle comes first and holds no values, so that tensors follow one at a time.

Source: public PyTorch repository, torch/serialization.py, _save; torch/_utils.py,
_rebuild_tensor_v2.
"""

import pathlib
import pickle
import struct
import zipfile

import numpy as np

from shotstream_jax.checkpoints.tensors import Tensor, Tensors
from shotstream_jax.checkpoints.torch_reader import DTYPES
from shotstream_jax.files import atomic_file

# Torch's storage classes by dtype, for the pickle to name.
_STORAGES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNMENT = 64
"""Torch maps files into memory, and expects values to start at multiples of this many bytes."""

# Fixed by the zip format: a local header without names, and the extra field with 64-bit sizes that
# `force_zip64` adds (2 + 2 bytes of header, two sizes of 8).
_LOCAL_HEADER_BYTES = 30
_ZIP64_EXTRA_BYTES = 20


def write_torch(path: pathlib.Path, tensors: Tensors, section: str | None = None) -> None:
    """Write a dict of contiguous tensors, nested under `section` if given, one at a time.

    The file appears when complete.

    Raises:
      ValueError: a dtype that torch has no storage for here.
    """
    described = _describe(tensors)
    if section is not None:
        described = _dict({section: described})
    root = path.stem
    with atomic_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        # Members and their order are those of torch.save; readers want protocol 2.
        _write(archive, f"{root}/data.pkl", pickle.PROTO + b"\x02" + described + pickle.STOP)
        _write(archive, f"{root}/byteorder", b"little")
        for key, tensor in enumerate(tensors.values()):
            values = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data
            _write(archive, f"{root}/data/{key}", values)
        _write(archive, f"{root}/version", b"3\n")


def _describe(tensors: Tensors) -> bytes:
    return _dict({name: _tensor(key, t) for key, (name, t) in enumerate(tensors.items())})


def _tensor(key: int, tensor: Tensor) -> bytes:
    """Opcodes of `_rebuild_tensor_v2((storage), offset, shape, strides, False, OrderedDict())`."""
    if tensor.dtype not in _STORAGES:
        known = ", ".join(map(str, _STORAGES))
        raise ValueError(f"Tensors of {tensor.dtype} are not written; cast them to one of {known}.")
    length = int(np.prod(tensor.shape))
    # Contiguous, so each stride is the product of the sizes behind it.
    strides = tuple(int(np.prod(tensor.shape[i + 1 :])) for i in range(len(tensor.shape)))
    storage = _tuple(
        _plain("storage"),
        _global("torch", _STORAGES[tensor.dtype]),
        _plain(str(key)),
        _plain("cpu"),
        _plain(length),
    )
    arguments = _tuple(
        storage + pickle.BINPERSID,
        _plain(0),
        _plain(tensor.shape),
        _plain(strides),
        pickle.NEWFALSE,
        _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE,
    )
    return _global("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def _plain(value: object) -> bytes:
    # What `dumps` puts around the value: two bytes of protocol before, one to stop behind.
    return pickle.dumps(value, protocol=2)[2:-1]


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _dict(items: dict[str, bytes]) -> bytes:
    pairs = b"".join(_plain(key) + value for key, value in items.items())
    return pickle.EMPTY_DICT + pickle.MARK + pairs + pickle.SETITEMS


def _write(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    member = zipfile.ZipInfo(name)
    headers = _LOCAL_HEADER_BYTES + len(name) + _ZIP64_EXTRA_BYTES
    # A field that readers skip; two of its four header bytes say how long it is.
    padding = -(archive.start_dir + headers + 4) % _ALIGNMENT
    member.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
    with archive.open(member, "w", force_zip64=True) as file:
        file.write(content)
