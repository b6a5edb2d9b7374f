"""LoRA files as other programs write them, made by rules that share nothing with the reader."""

import json
import math
import pathlib
import struct
from collections.abc import Callable, Mapping

import numpy as np

from shotstream_jax.checkpoints.torch_writer import write_torch

Factors = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""`a` [rank, in] and `b` [out, rank] by official module."""

_DIFFUSERS = (
    ("self_attn.q", "attn1.to_q"), ("self_attn.k", "attn1.to_k"), ("self_attn.v", "attn1.to_v"),
    ("self_attn.o", "attn1.to_out.0"), ("cross_attn.q", "attn2.to_q"),
    ("cross_attn.k", "attn2.to_k"), ("cross_attn.v", "attn2.to_v"),
    ("cross_attn.o", "attn2.to_out.0"), ("ffn.0", "ffn.net.0.proj"), ("ffn.2", "ffn.net.2"),
)  # fmt: skip


def _diffusers(module: str) -> str:
    for ours, theirs in _DIFFUSERS:
        module = module.replace(ours, theirs)
    return module


# For each layout: the name of a module, of its factors (a, b), and the file.
_Layout = tuple[Callable[[str], str], tuple[str, str], str]
_PEFT, _KOHYA = ("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight")
LAYOUTS: dict[str, _Layout] = {
    "plain": (lambda m: m, _PEFT, "x.safetensors"),
    "peft": (lambda m: f"base_model.model.{m}", _PEFT, "adapter_model.safetensors"),
    "peft .bin": (lambda m: f"base_model.model.{m}", _PEFT, "adapter_model.bin"),
    "peft of a wrapper": (lambda m: f"base_model.model.model.{m}", _PEFT, "x.safetensors"),
    "another adapter": (
        lambda m: f"base_model.model.{m}",
        ("lora_A.style.weight", "lora_B.style.weight"),
        "x.pt",
    ),
    "diffusers": (lambda m: f"transformer.{_diffusers(m)}", _PEFT, "x.safetensors"),
    "bare diffusers": (_diffusers, _PEFT, "x.safetensors"),
    "old diffusers": (
        lambda m: f"unet.{_diffusers(m)}",
        ("lora.down.weight", "lora.up.weight"),
        "x.safetensors",
    ),
    "ComfyUI": (lambda m: f"diffusion_model.{m}", _KOHYA, "x.safetensors"),
    "ComfyUI of a checkpoint": (lambda m: f"model.diffusion_model.{m}", _KOHYA, "x.safetensors"),
    "diffusion-pipe": (lambda m: f"diffusion_model.{m}", _PEFT, "x.safetensors"),
    "kohya": (lambda m: "lora_unet_" + m.replace(".", "_"), _KOHYA, "x.safetensors"),
    "kohya of diffusers": (
        lambda m: "lora_transformer_" + _diffusers(m).replace(".", "_"), _KOHYA, "x.safetensors"),
    "lycoris": (lambda m: "lycoris_" + m.replace(".", "_"), _KOHYA, "x.safetensors"),
    "compiled": (lambda m: f"_orig_mod.{m}", _PEFT, "x.safetensors"),
    "compiled blocks": (
        lambda m: m.replace("blocks.", "module.blocks.").replace(".ffn", "._orig_mod.ffn"),
        _PEFT, "x.safetensors"),
    "DDP": (lambda m: f"module.{m}", _PEFT, "x.ckpt"),
    "ShotStream": (lambda m: f"generator_lora.base_model.model.{m}", _PEFT, "x.pt"),
    "FSDP": (
        lambda m: f"_fsdp_wrapped_module.{m.replace('.ffn', '._checkpoint_wrapped_module.ffn')}",
        _PEFT,
        "x.safetensors",
    ),
    "another prefix": (lambda m: f"student.net.{m}", _PEFT, "x.safetensors"),
}  # fmt: skip

ALPHAS = (
    "none",
    "tensors",
    "--lora-alpha",
    "adapter_config.json",
    "rslora in adapter_config.json",
    "metadata of kohya",
    "metadata of diffusers",
    "metadata with patterns",
)

_ALL = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "cross_attn.q",
        "cross_attn.k", "cross_attn.v", "cross_attn.o", "ffn.0", "ffn.2")  # fmt: skip
RANKS: tuple[dict[str, int], ...] = (
    {f"blocks.{number % 3}.{name}": 4 for number, name in enumerate(_ALL)},
    # Several ranks in one file, and some layers and modules only.
    {"blocks.0.self_attn.q": 4, "blocks.2.self_attn.q": 2, "blocks.2.ffn.0": 1},
    {"blocks.1.cross_attn.o": 4},
)
"""Ranks by module; most modules of a file have rank 4."""


def draw_factors(table, ranks: Mapping[str, int]) -> Factors:
    random = np.random.default_rng(7)
    shapes = {module: table[f"{module}.weight"].shape for module in ranks}
    return {
        module: (
            random.normal(size=(rank, shapes[module][1])).astype(np.float32),
            random.normal(size=(shapes[module][0], rank)).astype(np.float32),
        )
        for module, rank in ranks.items()
    }


def write_lora(
    folder: pathlib.Path, factors: Factors, layout: str, alpha: str
) -> tuple[pathlib.Path, float | None, dict[str, float]] | None:
    """Write a file (peft: a folder); its path, --lora-alpha, and the true scale of each module.

    `None` if the layout has no such place for an alpha.
    """
    named, halves, file = LAYOUTS[layout]
    tensors = {}
    for module, (a, b) in factors.items():
        tensors[f"{named(module)}.{halves[0]}"] = a
        tensors[f"{named(module)}.{halves[1]}"] = b
    if alpha.startswith("metadata") and not file.endswith(".safetensors"):
        return None
    folder.mkdir(parents=True)
    ranks = {module: a.shape[0] for module, (a, _) in factors.items()}
    bare = _diffusers if "diffusers" in layout else lambda module: module
    alphas = _alphas(ranks, alpha)
    if alpha == "tensors":
        tensors |= {f"{named(m)}.alpha": np.float32(value) for m, value in alphas.items()}
    settings = _peft_settings(ranks, alphas, bare) | {"use_rslora": alpha.startswith("rslora")}
    if alpha.endswith("adapter_config.json"):
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    metadata = _metadata(alpha, settings)
    if file.endswith(".safetensors"):
        save_safetensors(folder / file, tensors, metadata)
    else:
        write_torch(folder / file, tensors)
    is_rslora = alpha.startswith("rslora")
    scales = {m: alphas[m] / (math.sqrt(r) if is_rslora else r) for m, r in ranks.items()}
    path = folder if file.startswith("adapter_model") else folder / file
    return path, 8.0 if alpha == "--lora-alpha" else None, scales


def _alphas(ranks: Mapping[str, int], alpha: str) -> dict[str, float]:
    """The alpha that is meant for each module; those that have patterns are of several values."""
    if alpha == "none":
        return {module: float(rank) for module, rank in ranks.items()}
    if alpha == "tensors":
        return {module: 2.0 + number for number, module in enumerate(ranks)}
    alphas = dict.fromkeys(ranks, 8.0)
    if alpha.endswith(("adapter_config.json", "patterns")):
        alphas[next(iter(alphas))] = 3.0
    return alphas


def _metadata(alpha: str, settings: Mapping[str, object]) -> dict[str, str]:
    if alpha == "metadata of kohya":
        return {"ss_network_dim": "4", "ss_network_alpha": "8.0"}
    if alpha == "metadata of diffusers":
        text = json.dumps({f"transformer.{key}": value for key, value in settings.items()})
        return {"format": "pt", "lora_adapter_metadata": text}
    if alpha == "metadata with patterns":
        return {"alpha": "8", "alpha_pattern": json.dumps(settings["alpha_pattern"])}
    return {}


def _peft_settings(ranks, alphas, bare) -> dict[str, object]:
    return {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {bare(module): rank for module, rank in ranks.items() if rank != 4},
        "alpha_pattern": {
            # A regular expression, as peft takes them.
            bare(module).replace(".", r"\."): value
            for module, value in alphas.items()
            if value != 8
        },
        "target_modules": ["q"],
        "lora_dropout": 0.1,
    }


def save_safetensors(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """A safetensors file with metadata, of the dtypes that tests need."""
    codes = {"float32": "F32", "float64": "F64", "int8": "I8", "bool": "BOOL", "bfloat16": "BF16",
             "float16": "F16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
             "uint8": "U8", "int64": "I64"}  # fmt: skip
    header, end = {"__metadata__": dict(metadata or {})}, 0
    arrays = {name: np.asarray(values) for name, values in tensors.items()}
    for name, values in arrays.items():
        place = [end, end := end + values.nbytes]
        header[name] = {
            "dtype": codes[str(values.dtype)], "shape": list(values.shape), "data_offsets": place
        }  # fmt: skip
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b"".join(values.tobytes() for values in arrays.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
