"""Names of the tensors in LoRA files: which module each belongs to, and what it is of it.

Trainers name the same tensor differently:

    base_model.model.blocks.0.self_attn.q.lora_A.default.weight    peft
    transformer.blocks.0.attn1.to_q.lora_A.weight                  diffusers
    diffusion_model.blocks.0.self_attn.q.lora_down.weight          ComfyUI, diffusion-pipe
    lora_unet_blocks_0_self_attn_q.lora_down.weight                kohya, musubi
    blocks.0.norm3.diff                                            lightx2v

So a name is read from its end: first what the tensor is, then the longest end of the remaining name
that is a module of the transformer. What stands before that is a prefix.

Source: public peft, diffusers, ComfyUI (comfy/lora.py), kohya-ss/musubi-tuner and lightx2v.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from shotstream_jax.checkpoints.naming import NameTable
from shotstream_jax.checkpoints.tensors import WRAPPERS, Tensors, few

LoRARole = Literal["a", "b", "b_bias", "alpha", "scale", "diff", "diff_bias", "diff_table"]
"""A factor, the bias of the second factor, a number, or a difference of a whole tensor."""

_HALVES: Mapping[str, LoRARole] = {
    **dict.fromkeys(("lora_A", "lora_down"), "a"),
    **dict.fromkeys(("lora_B", "lora_up"), "b"),
}
# diffusers before 0.22 wrote `to_q.lora.down` and `processor.to_q_lora.down`.
_OLD_HALVES: Mapping[str, LoRARole] = {"down": "a", "up": "b"}
_ALONE: Mapping[str, LoRARole] = {
    "alpha": "alpha",
    "scale": "scale",
    "diff": "diff",
    "diff_b": "diff_bias",
    "diff_m": "diff_table",
    # LyCORIS' names of the differences of a norm.
    "w_norm": "diff",
    "b_norm": "diff_bias",
}
_OTHER_KINDS: Mapping[str, str] = {
    "lora_magnitude_vector": "DoRA",
    "dora_scale": "DoRA",
    "lora_mid": "LoCon with a core tensor",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "boft_": "BOFT",
    "lora_embedding_": "LoRA of an embedding",
    "ia3_l": "IA3",
    "vera_lambda": "VeRA",
}
"""Beginnings of a segment that only other kinds of adapters have, and the kind."""

# Networks beside the one that films; their modules may be named alike.
_OTHER_NETWORKS = frozenset(
    {
        *("critic", "critic_lora", "fake_score", "real_score", "discriminator"),
        *("text_encoder", "text_encoder_2", "transformer_2", "vae", "image_encoder"),
    }
)
# The longest names of modules have 6 segments (blocks.0.ffn.net.0.proj), or 9 parts between
# underscores; looking no further keeps the search linear in the length of a hostile name.
_MOST_SEGMENTS, _MOST_PARTS = 8, 16


@dataclasses.dataclass(frozen=True)
class LoRAKey:
    """What the name of a tensor says.

    Attributes:
      stem: the name of its module with all prefixes, without torch's wrappers.
      role: what the tensor is of the module.
      adapter: name of the adapter, where peft wrote it into the key.
    """

    stem: str
    role: LoRARole
    adapter: str = ""


@dataclasses.dataclass(frozen=True)
class LoRAModule:
    """A module of the transformer that a file changes.

    Attributes:
      name: its name in the dialect of the file.
      prefix: what stood before that in the file.
      tensors: names in the file, by role.
    """

    name: str
    prefix: str
    tensors: Mapping[LoRARole, str]


def parse_key(name: str) -> LoRAKey | None:
    """What the name of a tensor says; `None` if it is no LoRA's."""
    parts = [part for part in name.split(".") if part not in WRAPPERS and part != "processor"]
    if parts[-1] in _ALONE and len(parts) > 1:
        return LoRAKey(".".join(parts[:-1]), _ALONE[parts[-1]])
    tail = parts.pop() if parts[-1] in ("weight", "bias") else "weight"
    if len(parts) > 1 and parts[-1] in _OLD_HALVES and parts[-2].endswith("lora"):
        # `to_q.lora` and `to_q_lora` both stand for the module `to_q`.
        stem = ".".join(parts[:-1]).removesuffix("lora")[:-1]
        return LoRAKey(stem, _OLD_HALVES[parts[-1]]) if stem else None
    adapter = ""
    if parts and parts[-1] not in _HALVES and len(parts) > 1:
        adapter = parts.pop()
    if len(parts) < 2 or parts[-1] not in _HALVES:
        return None
    role = _HALVES[parts[-1]]
    if tail == "bias":
        if role == "a":
            return None
        role = "b_bias"
    return LoRAKey(".".join(parts[:-1]), role, adapter)


def other_kind(name: str) -> str | None:
    """The kind of adapter, other than LoRA, that a tensor of this name belongs to."""
    for part in name.split("."):
        for start, kind in _OTHER_KINDS.items():
            if part.startswith(start):
                return kind
    return None


def find_modules(
    tensors: Tensors, dialects: Mapping[str, NameTable], where: object
) -> tuple[str, list[LoRAModule]]:
    """The modules that a file changes, and the dialect in which it names them.

    Raises:
      ValueError: a tensor that is no LoRA's, of another network or of another kind of adapter, that
        belongs to no module, or that is there twice.
    """
    keys = _parsed(tensors, where)
    found = {
        dialect: {key.stem: _split(key.stem, _modules(table)) for key in keys.values()}
        for dialect, table in dialects.items()
    }
    dialect = max(found, key=lambda name: sum(split is not None for split in found[name].values()))
    splits, modules = found[dialect], dict[str, dict[LoRARole, str]]()
    strays = [name for name, key in keys.items() if splits[key.stem] is None]
    if strays:
        raise ValueError(
            f"{where} adapts {few(strays)}, which this transformer does not have: "
            f"{len(strays)} of {len(keys)} tensors; give a LoRA that was made for it."
        )
    prefixes: dict[str, str] = {}
    for name, key in keys.items():
        split = splits[key.stem]
        if split is None:
            continue
        prefix, module = split
        _check_network(prefix, name, where)
        roles = modules.setdefault(module, {})
        if key.role in roles:
            raise ValueError(
                f"{where} names the same factor twice, {roles[key.role]} and {name}; "
                "save one adapter alone."
            )
        roles[key.role] = name
        prefixes[module] = prefix
    return dialect, [LoRAModule(name, prefixes[name], roles) for name, roles in modules.items()]


def _parsed(tensors: Tensors, where: object) -> dict[str, LoRAKey]:
    keys: dict[str, LoRAKey] = {}
    strays = []
    for name in tensors:
        kind = other_kind(name)
        if kind is not None:
            raise ValueError(
                f"{where} holds {kind} ({name}), which is not read here; "
                "merge it with the program that made it, or give a plain LoRA."
            )
        key = parse_key(name)
        if key is None:
            strays.append(name)
        else:
            keys[name] = key
    if strays or not keys:
        raise ValueError(
            f"{where} is no LoRA file: of {len(tensors)} tensors {len(strays)} are not "
            f"factors, alphas or differences ({few(strays) or 'it is empty'}); "
            "give the file that the trainer saved."
        )
    adapters = sorted({key.adapter for key in keys.values() if key.adapter})
    if len(adapters) > 1:
        raise ValueError(f"{where} holds the adapters {few(adapters)}; save one of them alone.")
    return keys


def _check_network(prefix: str, name: str, where: object) -> None:
    other = _OTHER_NETWORKS.intersection(prefix.split("."))
    if other:
        raise ValueError(
            f"{where} adapts {min(other)} ({name}), which is not the transformer that films; "
            "give the LoRA of that alone."
        )


def _modules(table: NameTable) -> dict[str, str]:
    """Names of all modules, as they are and with underscores for dots."""
    names = set()
    for name in table:
        # A table of modulations has no `weight` at its end; its module is what holds it.
        module, _, last = name.rpartition(".")
        names |= {module} if last in ("weight", "bias") else {module, name}
    names.discard("")
    return {form: name for name in sorted(names) for form in (name, name.replace(".", "_"))}


def _split(stem: str, modules: Mapping[str, str]) -> tuple[str, str] | None:
    """Prefix and module of a stem: the longest end of it that is a module."""
    sign, most = (".", _MOST_SEGMENTS) if "." in stem else ("_", _MOST_PARTS)
    parts = stem.split(sign)
    for start in range(max(0, len(parts) - most), len(parts)):
        module = modules.get(sign.join(parts[start:]))
        if module is not None:
            return sign.join(parts[:start]), module
    return None
