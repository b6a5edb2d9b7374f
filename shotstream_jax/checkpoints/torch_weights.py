"""Opening of weight files by suffix: torch's, safetensors, one file or shards."""

import json
import pathlib
import re

from shotstream_jax.checkpoints.safetensors_files import read_safetensors
from shotstream_jax.checkpoints.tensors import Tensor, Tensors, section_of
from shotstream_jax.checkpoints.torch_reader import read_torch

_INDEX = ".index.json"
# diffusers puts a variant's name within: model.safetensors.index.fp16.json.
_VARIANT_INDEX = re.compile(r"\.index\.\w+\.json$")
_TORCH = (".pt", ".pth", ".bin", ".ckpt")
_SAFETENSORS = ".safetensors"
# What files begin with that stand in the place of weights.
_LFS, _GGUF = b"version https://git-lfs", b"GGUF"

GGUF_ADVICE = (
    "fetch the safetensors of the same model (Wan-AI/Wan2.1-T2V-1.3B or -14B has "
    "diffusion_pytorch_model.safetensors)."
)
"""What to fetch in place of a GGUF file."""


def open_weights(path: pathlib.Path, section: str | None = None) -> Tensors:
    """Open `.pt`, `.pth`, `.bin`, `.safetensors`, or the `.index.json` of shards of these.

    Nothing but names, shapes and dtypes is read; `np.asarray` of a value reads that tensor. Nested
    dicts become dotted names; `section` keeps one branch of them and drops its name, as in
    `generator` for `{"generator": {"model.head.modulation": ...}}`.

    Raises:
      FileNotFoundError: there is no such file.
      IsADirectoryError: it is a folder.
      ValueError: a file of another kind or a damaged one, or one without the section.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, and a file of weights was expected; name it.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; check the path.")
    tensors = _open(path)
    return tensors if section is None else section_of(tensors, section, path)


def _open(path: pathlib.Path) -> Tensors:
    with path.open("rb") as file:
        start = file.read(len(_LFS))
    if start == _LFS:
        raise ValueError(
            f"{path} is a pointer of Git LFS and not the file itself; run `git lfs pull`."
        )
    if path.suffix == ".gguf" or start.startswith(_GGUF):
        raise ValueError(f"{path} is a GGUF file, which is not read here; {GGUF_ADVICE}")
    if _is_index(path.name):
        return _open_shards(path)
    if path.suffix == _SAFETENSORS:
        return read_safetensors(path)
    if path.suffix in _TORCH:
        return read_torch(path)
    raise ValueError(
        f"{path} has a suffix that is not known; weights end in "
        f"{', '.join((*_TORCH, _SAFETENSORS, _INDEX))}."
    )


def _is_index(name: str) -> bool:
    return name.endswith(_INDEX) or _VARIANT_INDEX.search(name) is not None


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
        if shard.parent != index.parent or _is_index(file):
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
