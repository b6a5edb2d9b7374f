"""Opening of weight files by suffix: torch's, safetensors, one file or shards."""

import json
import pathlib

from shotstream_jax.checkpoints.safetensors_files import read_safetensors
from shotstream_jax.checkpoints.tensors import Tensor, Tensors, section_of
from shotstream_jax.checkpoints.torch_reader import read_torch

_INDEX = ".index.json"
_TORCH = (".pt", ".pth", ".bin", ".ckpt")
_SAFETENSORS = ".safetensors"


def open_weights(path: pathlib.Path, section: str | None = None) -> Tensors:
    """Open `.pt`, `.pth`, `.bin`, `.safetensors`, or the `.index.json` of shards of these.

    Nothing but names, shapes and dtypes is read; `np.asarray` of a value reads that tensor. Nested
    dicts become dotted names; `section` keeps one branch of them and drops its name, as in
    `generator` for `{"generator": {"model.head.modulation": ...}}`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a file of another kind or a damaged one, or one without the section.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; check the path.")
    tensors = _open(path)
    return tensors if section is None else section_of(tensors, section, path)


def _open(path: pathlib.Path) -> Tensors:
    if path.name.endswith(_INDEX):
        return _open_shards(path)
    if path.suffix == _SAFETENSORS:
        return read_safetensors(path)
    if path.suffix in _TORCH:
        return read_torch(path)
    raise ValueError(
        f"{path} has a suffix that is not known; weights end in "
        f"{', '.join((*_TORCH, _SAFETENSORS, _INDEX))}."
    )


def _open_shards(index: pathlib.Path) -> Tensors:
    """Tensors of all shards that an index lists, and of no other file."""
    try:
        shards: dict[str, str] = json.loads(index.read_text())["weight_map"]
        files = sorted(set(shards.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of shards ({error}); fetch it again.") from error
    tensors: dict[str, Tensor] = {}
    for file in files:
        # An index from the web must not name files elsewhere, or itself.
        shard = index.parent / file
        if shard.parent != index.parent or file.endswith(_INDEX):
            raise ValueError(f"{index} names {file}, which is not beside it; fetch it again.")
        tensors.update(open_weights(shard))
    # A shard of another release opens well and lacks tensors that the index has.
    lost = sorted(set(shards) - set(tensors))
    if lost:
        raise ValueError(
            f"{index} lists {lost[0]} in {shards[lost[0]]}, which does not hold it; "
            f"fetch that shard again ({len(lost)} such tensors)."
        )
    return tensors
