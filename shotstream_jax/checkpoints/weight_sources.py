"""Sources of weights to convert, and the networks in them.

A source is a Wan2.1 folder, a diffusers folder, or a file of one network with a folder (the base)
that has the others. Nothing is read here but names, shapes and dtypes.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from shotstream_jax.checkpoints.foreign_settings import check_settings
from shotstream_jax.checkpoints.formats import OFFICIAL_FORMATS, without_copies
from shotstream_jax.checkpoints.lora_files import merge_lora, read_lora
from shotstream_jax.checkpoints.lora_source import LoRARequest
from shotstream_jax.checkpoints.lora_trees import kept_factors
from shotstream_jax.checkpoints.manager import CONFIG
from shotstream_jax.checkpoints.naming import NameTable
from shotstream_jax.checkpoints.network_search import find_network
from shotstream_jax.checkpoints.quantisation import plain_weights
from shotstream_jax.checkpoints.tensors import Tensors
from shotstream_jax.checkpoints.torch_weights import open_weights
from shotstream_jax.checkpoints.weight_folders import TOKENIZERS, find_files
from shotstream_jax.model_config import FORMAT, LoRAConfig, NetworkConfig
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.strict_json import load_object


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


def is_checkpoint(folder: pathlib.Path) -> bool:
    """Whether a folder has the `config.json` of a checkpoint of this package.

    Raises:
      ValueError: a `config.json` that cannot be read.
    """
    return _json(folder / CONFIG).get("format") == FORMAT


def find_source(
    path: pathlib.Path,
    *,
    base: pathlib.Path | None = None,
    section: str | None = None,
    variant: str | None = None,
) -> Source:
    """Find the networks of a folder, or of a file and of the folder that it is based on.

    `section` chooses a branch of the file, by default the one with a network, or `generator` where
    several have; `variant` chooses among files of one network. Sizes come from shapes, and from the
    `config.json` beside the weights or in the base.

    Raises:
      FileNotFoundError: a path, a network or a tokenizer that is not there.
      ValueError: a file or folder that is not known, or is damaged.
    """
    if path.is_dir():
        if base is not None:
            raise ValueError(f"{path} is a folder, which needs no base; leave out {base}.")
        if section is not None:
            raise ValueError(f"--section {section} is a branch of a file, and {path} is a folder.")
        return _in_folder(path, variant=variant)
    # Settings beside the file describe it; the base's may describe another size (sizes.py checks).
    beside, fallback = path.parent / "config.json", base and base / "config.json"
    settings = beside if beside.is_file() or fallback is None else fallback
    network, part = _part(path, settings, section, is_own=False)
    if base is None:
        return Source({network: part}, _tokenizer_beside(path) if network == "text" else None)
    others = _in_folder(base, without=network, variant=variant)
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


def _in_folder(
    path: pathlib.Path, without: str | None = None, variant: str | None = None
) -> Source:
    """All networks that a folder of a known kind must hold, except the network `without`."""
    if is_checkpoint(path):
        raise ValueError(
            f"{path} is a checkpoint already; give official weights, or --dtype to store it again."
        )
    folder = find_files(path, without=without, variant=variant)
    tokenizer = _checked_tokenizer(folder.tokenizer)
    networks = {}
    for name, file in folder.files.items():
        network, part = _part(file, file.parent / "config.json")
        if network != name:
            raise ValueError(
                f"{file} holds a {part.kind}, where the folder's {name} was expected; "
                "fetch the file of that name again."
            )
        networks[name] = dataclasses.replace(part, notes=(*folder.notes[name], *part.notes))
    return Source(networks, tokenizer)


def _part(
    file: pathlib.Path, settings: pathlib.Path, section: str | None = None, *, is_own: bool = True
) -> tuple[str, SourceNetwork]:
    found = find_network(open_weights(file), file, section)
    format_ = found.format
    # Tied embeddings are saved under two names by some libraries.
    tensors = without_copies(format_, found.tensors)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    stored = _json(settings)
    try:
        config = format_.sizes(shapes, format_.signature_keys, stored)
        notes = check_settings(format_.settings, stored, config, settings, is_own=is_own)
    except ValueError as error:
        raise ValueError(f"{file}, read as a {format_.name}: {error}") from error
    table = format_.names(config)
    tensors, changes = plain_weights(table, tensors, file)
    return format_.network, SourceNetwork(
        format_.name, table, tensors, config, (file.name,), (*found.notes, *changes, *notes)
    )


def _tokenizer_beside(text: pathlib.Path) -> pathlib.Path:
    """The tokenizer of a folder that a file of a text encoder is in."""
    # Beside the file (Wan2.1), or beside its subfolder (diffusers).
    places = [text.parent / place for place in TOKENIZERS]
    places += [text.parent.parent / place for place in TOKENIZERS]
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
