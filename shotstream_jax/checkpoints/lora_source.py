"""Where a LoRA comes from: a file or peft's folder, opened with what lies beside the tensors."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

from shotstream_jax.checkpoints.lora_scales import (
    ADAPTER_CONFIG,
    LoRASettings,
    read_adapter_config,
    read_metadata,
)
from shotstream_jax.checkpoints.safetensors_files import read_metadata_of
from shotstream_jax.checkpoints.tensors import Tensors, few, section_of, sections
from shotstream_jax.checkpoints.torch_weights import open_weights

_ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
# diffusers' pipelines save under these names.
_PIPELINE = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
# ShotStream's trainers save the critic's factors beside the generator's.
_SECTION = "generator_lora"


@dataclasses.dataclass(frozen=True)
class LoRARequest:
    """A LoRA to add, and how much of it.

    Attributes:
      path: file, or folder that peft or diffusers saved.
      strength: factor on all that it changes; 1 is as trained, negative numbers take it away.
    """

    path: pathlib.Path
    strength: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "LoRARequest":
        """Read `FILE` or `FILE:STRENGTH`.

        Raises:
          ValueError: a strength that is no finite number.
        """
        path, colon, strength = text.rpartition(":")
        # A colon may be in a name: a path that exists is meant as it is.
        if not colon or not path or pathlib.Path(text).exists():
            return cls(pathlib.Path(text))
        try:
            number = float(strength)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(
                f"--lora {text} asks for strength {strength!r}, and there is no file of that name; "
                "give FILE or FILE:STRENGTH, as in style.safetensors:0.8."
            )
        return cls(pathlib.Path(path), number)


@dataclasses.dataclass(frozen=True)
class LoRATensors:
    """The content of a LoRA file, unread.

    Attributes:
      path: the file.
      tensors: by the name in the file.
      settings: what `adapter_config.json` and the metadata tell.
      notes: what was chosen or left out, one line each.
    """

    path: pathlib.Path
    tensors: Tensors
    settings: Sequence[LoRASettings]
    notes: tuple[str, ...]


def open_lora(path: pathlib.Path) -> LoRATensors:
    """Open a LoRA file, or the folder that it was saved into.

    Raises:
      FileNotFoundError: nothing is there, or a folder without a LoRA.
      ValueError: a damaged file, or a folder that has several.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no LoRA {path}; give a file, or the folder peft saved.")
    file = _file_in(path) if path.is_dir() else path
    tensors = open_weights(file)
    notes = [] if file == path else [f"{file.name} of {path.name} is read"]
    if _SECTION in sections(tensors):
        others = [name for name in sections(tensors) if name != _SECTION]
        if others:
            notes.append(f"{_SECTION} is read, and not {few(others)}")
        tensors = section_of(tensors, _SECTION, file)
    settings = []
    if file.suffix == ".safetensors":
        settings.append(read_metadata(read_metadata_of(file), file))
    beside = file.parent / ADAPTER_CONFIG
    if beside.is_file():
        # In a folder of several files the settings belong to the one that peft names.
        if file.name in _ADAPTER or not any((file.parent / name).is_file() for name in _ADAPTER):
            settings.append(read_adapter_config(beside))
        else:
            notes.append(f"{beside.name} beside {file.name} belongs to another file: not read")
    return LoRATensors(file, tensors, settings, tuple(notes))


def is_adapter_folder(path: pathlib.Path) -> bool:
    """Whether a folder is one that peft saved."""
    return path.is_dir() and (path / ADAPTER_CONFIG).is_file()


def _file_in(folder: pathlib.Path) -> pathlib.Path:
    named = [folder / name for name in (*_ADAPTER, *_PIPELINE) if (folder / name).is_file()]
    if named:
        return named[0]
    # peft saves an adapter that is not the default one into a folder of its name.
    inner = sorted(path.parent for path in folder.glob(f"*/{ADAPTER_CONFIG}"))
    if len(inner) == 1:
        return _file_in(inner[0])
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    if len(files) == 1:
        return files[0]
    choices = [path.name for path in inner or files]
    if not choices:
        raise FileNotFoundError(
            f"{folder} is a folder without a LoRA: it has no {_ADAPTER[0]}; give the file itself."
        )
    raise ValueError(f"{folder} holds {len(choices)} LoRAs ({few(choices)}); give one of them.")
