"""Sources of weights to convert, and the networks in them.

A source is a Wan2.1 folder, a diffusers folder, or a file of one network with a folder (the base)
that has the others. Nothing is read here but names, shapes and dtypes.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from shotstream_jax.checkpoints.foreign_settings import check_settings
from shotstream_jax.checkpoints.formats import OFFICIAL_FORMATS, recognise, without_copies
from shotstream_jax.checkpoints.lora_files import merge_lora, read_lora
from shotstream_jax.checkpoints.lora_source import LoRARequest
from shotstream_jax.checkpoints.lora_trees import kept_factors
from shotstream_jax.checkpoints.manager import CONFIG
from shotstream_jax.checkpoints.naming import NameTable
from shotstream_jax.checkpoints.tensors import Tensors, section_of, sections, unwrap
from shotstream_jax.checkpoints.torch_weights import open_weights
from shotstream_jax.model_config import FORMAT, LoRAConfig, NetworkConfig
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.strict_json import load_object

# ShotStream's releases also hold `generator_ema` or the critic; `generator` is what films.
_SECTION = "generator"


@dataclasses.dataclass(frozen=True)
class SourceNetwork:
    """One network to convert.

    Attributes:
      kind: name of its format.
      table: its name table.
      tensors: by bare name.
      config: its sizes.
      files: names of the files that it comes from.
      notes: what was guessed, or not read of the settings beside the weights.
    """

    kind: str
    table: NameTable
    tensors: Tensors
    config: NetworkConfig | LoRAConfig
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Source:
    """The networks to convert, by name, and the tokenizer file where there is one."""

    networks: Mapping[str, SourceNetwork]
    tokenizer: pathlib.Path | None


@dataclasses.dataclass(frozen=True)
class _Folder:
    """File patterns of each network in a kind of folder, of which the first match counts."""

    name: str
    networks: Mapping[str, tuple[str, ...]]
    tokenizer: str


# A single file before its shards' index: where both are, the single one is complete by itself.
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_INDEX = ".index.json"
_FOLDERS = (
    _Folder(
        "diffusers",
        {
            "dit": (f"transformer/{_WEIGHTS}", f"transformer/{_WEIGHTS}{_INDEX}"),
            "vae": (f"vae/{_WEIGHTS}",),
            "text": (
                "text_encoder/model.safetensors",
                f"text_encoder/model.safetensors{_INDEX}",
            ),
        },
        "tokenizer/tokenizer.json",
    ),
    _Folder(
        "Wan2.1",
        {
            "dit": (_WEIGHTS, f"{_WEIGHTS}{_INDEX}"),
            "vae": ("*VAE.pth",),
            "text": ("models_t5_*.pth",),
        },
        "google/umt5-xxl/tokenizer.json",
    ),
)


def is_checkpoint(folder: pathlib.Path) -> bool:
    """Whether a folder has the `config.json` of a checkpoint of this package.

    Raises:
      ValueError: a `config.json` that cannot be read.
    """
    return _json(folder / CONFIG).get("format") == FORMAT


def find_source(
    path: pathlib.Path, *, base: pathlib.Path | None = None, section: str | None = None
) -> Source:
    """Find the networks of a folder, or of a file and of the folder that it is based on.

    `section` chooses a branch of the file, by default `generator` where there is one. Sizes come
    from shapes, and from the `config.json` beside the weights or in the base.

    Raises:
      FileNotFoundError: a path, a network or a tokenizer that is not there.
      ValueError: a file or folder that is not known, or is damaged.
    """
    if path.is_dir():
        if base is not None:
            raise ValueError(f"{path} is a folder, which needs no base; leave out {base}.")
        return _in_folder(path)
    # Settings beside the file describe it; the base's may describe another size (sizes.py checks).
    beside, fallback = path.parent / "config.json", base and base / "config.json"
    settings = beside if beside.is_file() or fallback is None else fallback
    network, part = _part(path, settings, section, is_own=False)
    if base is None:
        return Source({network: part}, _tokenizer_beside(path) if network == "text" else None)
    others = _in_folder(base, without=network)
    return Source({network: part, **others.networks}, others.tokenizer)


def with_loras(
    source: Source,
    requests: Sequence[LoRARequest],
    *,
    alpha: float | None = None,
    keep: bool = False,
) -> Source:
    """Merge LoRAs into the transformer, or `keep` their factors as a network of their own.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: no LoRA, one that does not belong to this transformer or is incomplete, one that
        contradicts itself or `alpha`, or no transformer to adapt.
    """
    names = ", ".join(request.path.name for request in requests)
    if "dit" not in source.networks:
        raise ValueError(f"{names} adapts a transformer, and the source holds none; give it one.")
    base = source.networks["dit"]
    if not isinstance(base.config, DiTConfig):
        raise TypeError(f"The transformer has a config of type {type(base.config).__name__}.")
    loras = [read_lora(request, base.config, alpha) for request in requests]
    notes = tuple(line for lora in loras for line in (lora.summary, *lora.notes))
    files = tuple(request.path.name for request in requests)
    if keep:
        # Stored under official names even where the base is in diffusers' layout.
        table, tensors, adapters = kept_factors(OFFICIAL_FORMATS["dit"].names(base.config), loras)
        part = SourceNetwork("LoRA factors", table, tensors, adapters, files, notes)
        return dataclasses.replace(source, networks={**source.networks, "lora": part})
    part = dataclasses.replace(
        base,
        tensors=merge_lora(base.table, base.tensors, loras),
        files=(*base.files, *files),
        notes=(*base.notes, *notes),
    )
    return dataclasses.replace(source, networks={**source.networks, "dit": part})


def _in_folder(path: pathlib.Path, without: str | None = None) -> Source:
    """All networks that a folder of a known kind must hold, except the network `without`."""
    if not path.is_dir():
        raise FileNotFoundError(f"There is no folder {path}; check the path.")
    if is_checkpoint(path):
        raise ValueError(
            f"{path} is a checkpoint already; give official weights, or --dtype to store it again."
        )
    # The kind with most files, so that an incomplete folder is reported by what it lacks.
    found = {folder.name: _files(path, folder) for folder in _FOLDERS}
    folder = max(_FOLDERS, key=lambda folder: len(found[folder.name]))
    files = found[folder.name]
    if not files:
        known = " or ".join(folder.networks["dit"][0] for folder in _FOLDERS)
        raise ValueError(
            f"{path} is no folder of a known kind: it has no {known} and nothing else that is "
            "converted; give a Wan2.1 or diffusers folder, or a file of weights."
        )
    patterns = {
        **{name: p[0] for name, p in folder.networks.items()},
        "tokenizer": folder.tokenizer,
    }
    # A film needs all three networks and the tokenizer: half a folder is a download that was cut.
    missing = [pattern for name, pattern in patterns.items() if name not in {*files, without}]
    if missing:
        raise FileNotFoundError(
            f"{folder.name} folder {path} has no {' and no '.join(missing)}; "
            "fetch what is missing, nothing partial is converted."
        )
    tokenizer = _checked_tokenizer(files.pop("tokenizer"))
    networks = dict(
        _part(file, file.parent / "config.json") for name, file in files.items() if name != without
    )
    return Source(networks, tokenizer)


def _files(path: pathlib.Path, folder: _Folder) -> dict[str, pathlib.Path]:
    patterns = {**folder.networks, "tokenizer": (folder.tokenizer,)}
    return {
        name: match[0]
        for name, choices in patterns.items()
        if (match := [file for pattern in choices for file in sorted(path.glob(pattern))])
    }


def _part(
    file: pathlib.Path, settings: pathlib.Path, section: str | None = None, *, is_own: bool = True
) -> tuple[str, SourceNetwork]:
    tensors = open_weights(file)
    # A bare file has no sections: its first segments are names of modules.
    if section is None and _SECTION in sections(tensors):
        section = _SECTION
    if section is not None:
        tensors = section_of(tensors, section, file)
    tensors = unwrap(tensors)
    format_ = recognise(tensors, file)
    # Tied embeddings are saved under two names by some libraries.
    tensors = without_copies(format_, tensors)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    stored = _json(settings)
    try:
        config = format_.sizes(shapes, format_.signature_keys, stored)
        notes = check_settings(format_.settings, stored, config, settings, is_own=is_own)
    except ValueError as error:
        raise ValueError(f"{file}, read as a {format_.name}: {error}") from error
    table = format_.names(config)
    return format_.network, SourceNetwork(format_.name, table, tensors, config, (file.name,), notes)


def _tokenizer_beside(text: pathlib.Path) -> pathlib.Path:
    """The tokenizer of a folder that a file of a text encoder is in."""
    # Beside the file (Wan2.1), or beside its subfolder (diffusers).
    places = [text.parent / folder.tokenizer for folder in _FOLDERS]
    places += [text.parent.parent / folder.tokenizer for folder in _FOLDERS]
    for place in places:
        if place.is_file():
            return _checked_tokenizer(place)
    raise FileNotFoundError(
        f"{text} is a text encoder and has no tokenizer beside it ({places[-1]}); fetch that too."
    )


def _checked_tokenizer(path: pathlib.Path) -> pathlib.Path:
    # A Git LFS pointer or an error page in its place is JSON without a model, or no JSON.
    if "model" not in _json(path):
        raise ValueError(f"{path} describes no tokenizer (it has no model); fetch it again.")
    return path


def _json(path: pathlib.Path) -> dict[str, Any]:
    """An object from a file, empty if there is no such file."""
    return load_object(path) if path.is_file() else {}
