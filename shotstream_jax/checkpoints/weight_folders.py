"""Folders of weights as they are published: which file holds which network, in which variant.

    transformer/diffusion_pytorch_model.safetensors                        diffusers
    transformer/diffusion_pytorch_model.fp16.safetensors                   a variant of it
    transformer/diffusion_pytorch_model.bin.index.json                     shards, as torch files
    diffusion_pytorch_model.safetensors, Wan2.1_VAE.pth, models_t5_*.pth   Wan2.1

Source: public diffusers, utils/constants.py and loading_utils (variants); Wan2.1, README.md.
"""

import dataclasses
import fnmatch
import pathlib
import re
from collections.abc import Mapping, Sequence

from shotstream_jax.checkpoints.lora_source import is_adapter_folder
from shotstream_jax.checkpoints.tensors import few
from shotstream_jax.checkpoints.torch_weights import GGUF_ADVICE

_MODEL = "diffusion_pytorch_model"
_SINGLE = (".safetensors", ".bin", ".pth", ".pt")
_INDEX = re.compile(r"(?P<kind>\.safetensors|\.bin)\.index(?:\.(?P<variant>\w+))?\.json")
_VARIANT = re.compile(r"(?:\.(?P<variant>\w+))?")


@dataclasses.dataclass(frozen=True)
class _Layout:
    """A kind of folder: for each network its subfolder, and patterns of the files' stems."""

    name: str
    networks: Mapping[str, tuple[str, tuple[str, ...], str]]
    tokenizer: str


_LAYOUTS = (
    _Layout(
        "diffusers",
        {
            "dit": ("transformer", (_MODEL,), f"{_MODEL}.safetensors"),
            "vae": ("vae", (_MODEL,), f"{_MODEL}.safetensors"),
            "text": ("text_encoder", ("model", "pytorch_model"), "model.safetensors"),
        },
        "tokenizer/tokenizer.json",
    ),
    _Layout(
        "Wan2.1",
        {
            "dit": ("", (_MODEL,), f"{_MODEL}.safetensors"),
            "vae": ("", ("*VAE",), "*VAE.pth"),
            "text": ("", ("models_t5_*",), "models_t5_*.pth"),
        },
        "google/umt5-xxl/tokenizer.json",
    ),
)
TOKENIZERS = tuple(layout.tokenizer for layout in _LAYOUTS)
"""Where the kinds of folders keep their tokenizer."""


@dataclasses.dataclass(frozen=True)
class WeightFolder:
    """The files of a folder.

    Attributes:
      files: by network, one file or index each.
      tokenizer: the tokenizer's file.
      notes: by network, what was chosen among several files.
    """

    files: Mapping[str, pathlib.Path]
    tokenizer: pathlib.Path
    notes: Mapping[str, tuple[str, ...]]


def find_files(
    path: pathlib.Path, *, without: str | None = None, variant: str | None = None
) -> WeightFolder:
    """The files of all networks but `without`, in a `variant` where there is one.

    Raises:
      FileNotFoundError: no folder, or networks that it lacks.
      NotADirectoryError: it is a file.
      ValueError: a folder of another kind, or several variants of which none was chosen.
    """
    if not path.is_dir():
        advice = "give the folder that holds all networks"
        if path.exists():
            raise NotADirectoryError(f"{path} is a file and not a folder; {advice}.")
        raise FileNotFoundError(f"There is no folder {path}; {advice}.")
    found = {layout.name: _choices(path, layout) for layout in _LAYOUTS}
    # The kind with most files, so that an incomplete folder is reported by what it lacks.
    layout = max(_LAYOUTS, key=lambda layout: len(found[layout.name]))
    choices, tokenizer = found[layout.name], path / layout.tokenizer
    if not choices and not tokenizer.is_file():
        raise ValueError(_unknown(path))
    _refuse_missing(path, layout, {*choices, without}, tokenizer)
    if variant is not None and not any(variant in files for files in choices.values()):
        known = sorted({name for files in choices.values() for name in files if name})
        raise ValueError(f"{path} has no variant {variant!r}; it has {', '.join(known) or 'none'}.")
    files, notes = {}, {}
    for name in choices:
        if name != without:
            files[name], notes[name] = _chosen(path, choices[name], variant)
    return WeightFolder(files, tokenizer, notes)


def _choices(path: pathlib.Path, layout: _Layout) -> dict[str, dict[str, list[pathlib.Path]]]:
    """For each network that is there: its files by variant, the best first."""
    found = {}
    for network, (inner, stems, _) in layout.networks.items():
        folder = path / inner
        names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
        variants: dict[str, list[pathlib.Path]] = {}
        for stem in stems:
            for name in names:
                variant = _variant(name, stem)
                if variant is not None:
                    variants.setdefault(variant, []).append(folder / name)
        if variants:
            found[network] = {name: sorted(files, key=_rank) for name, files in variants.items()}
    return found


def _variant(name: str, stem: str) -> str | None:
    """The variant that a file is of, empty for none; `None` for a file of another stem."""
    if "*" in stem:
        # Names of Wan2.1's folder, which have no variants.
        wild = any(fnmatch.fnmatchcase(name, stem + suffix) for suffix in _SINGLE)
        return "" if wild else None
    if not name.startswith(stem):
        return None
    rest = name.removeprefix(stem)
    index = _INDEX.fullmatch(rest)
    if index:
        return index["variant"] or ""
    suffix = next((suffix for suffix in _SINGLE if rest.endswith(suffix)), None)
    match = _VARIANT.fullmatch(rest.removesuffix(suffix)) if suffix else None
    return (match["variant"] or "") if match else None


def _rank(path: pathlib.Path) -> tuple[bool, bool, str]:
    # Safetensors before pickles, and a single file before its shards' index: where both are, the
    # single one is complete by itself.
    return ".safetensors" not in path.name, path.name.endswith(".json"), path.name


def _chosen(
    path: pathlib.Path, variants: Mapping[str, Sequence[pathlib.Path]], variant: str | None
) -> tuple[pathlib.Path, tuple[str, ...]]:
    """The file to read of one network, and what is to be said of the choice."""
    wanted = variant if variant is not None and variant in variants else ""
    if wanted not in variants:
        if len(variants) > 1:
            one = next(iter(variants.values()))[0].parent
            raise ValueError(
                f"{one} has the variants {', '.join(sorted(variants))}; add --variant to choose."
            )
        wanted = next(iter(variants))
    file, *others = variants[wanted]
    others += [files[0] for name, files in variants.items() if name != wanted]
    if wanted != (variant or "") or others:
        also = f", not {few([other.name for other in others])}" if others else ""
        return file, (f"{file.relative_to(path).as_posix()} is read{also}",)
    return file, ()


def _refuse_missing(
    path: pathlib.Path, layout: _Layout, found: set[str | None], tokenizer: pathlib.Path
) -> None:
    """Raises: FileNotFoundError: a film needs a file that is not there; all of them are named."""
    # All three networks and the tokenizer: half a folder is a download that was cut.
    missing = [
        f"{inner}/{shown}".removeprefix("/")
        for name, (inner, _, shown) in layout.networks.items()
        if name not in found
    ]
    missing += [] if tokenizer.is_file() else [layout.tokenizer]
    if missing:
        raise FileNotFoundError(
            f"{layout.name} folder {path} has no {' and no '.join(missing)}; "
            "fetch what is missing, nothing partial is converted."
        )


def _unknown(path: pathlib.Path) -> str:
    if is_adapter_folder(path):
        return f"{path} is a folder of peft's with a LoRA; give it with --lora, and a base."
    if any(path.glob("*.gguf")):
        return f"{path} holds GGUF files, which are not read here; {GGUF_ADVICE}"
    known = " or ".join(
        f"{inner}/{shown}".removeprefix("/")
        for inner, _, shown in (layout.networks["dit"] for layout in _LAYOUTS)
    )
    return (
        f"{path} is no folder of a known kind: it has no {known} and nothing else that is "
        "converted; give a Wan2.1 or diffusers folder, or a file of weights."
    )
