"""The network in a file of weights: under which prefix it is, and in which layout.

The same transformer is saved as `blocks.0...`, `model.blocks.0...`, `module...` (DDP),
`model.diffusion_model...` (ComfyUI) or `generator._fsdp_wrapped_module.model...` (ShotStream). It
is found by the tensors that tell the layouts apart (formats.py), wherever their names end so.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from shotstream_jax.checkpoints.formats import WEIGHT_FORMATS, Format
from shotstream_jax.checkpoints.lora_keys import other_kind, parse_key
from shotstream_jax.checkpoints.tensors import (
    WRAPPERS,
    Tensors,
    drop_wrappers,
    few,
    section_of,
    sections,
)

# ShotStream's releases also hold `generator_ema` or the critic; `generator` is what films.
_PREFERRED = "generator"
# Before a network's own name there are a few segments at most; the names that tell layouts apart
# have 8 segments at most. Looking no further keeps the search linear in hostile names.
_MOST_SEGMENTS = 8

_OTHER_MODELS: Mapping[str, str] = {
    "img_emb.": "an image-to-video model of Wan (it has an image encoder's projection)",
    "vace_blocks.": "VACE, which has blocks for control videos",
    "vace_patch_embedding.": "VACE, which has blocks for control videos",
    "casual_audio_encoder.": "Wan2.2-S2V, which reads audio",
    "control_adapter.": "a camera-control model of Wan",
    "face_encoder.": "Wan2.2-Animate",
    "condition_embedder.image_embedder.": "an image-to-video model of Wan, in diffusers' layout",
    "encoder.downsamples.0.downsamples.": "the autoencoder of Wan2.2-TI2V-5B (residual stages)",
    "encoder.down_blocks.0.resnets.": "the autoencoder of Wan2.2-TI2V-5B, in diffusers' layout",
}
"""Beginnings of names that only models of the family have which do not film here."""


@dataclasses.dataclass(frozen=True)
class FoundNetwork:
    """A network that was found in a file.

    Attributes:
      format: its layout.
      tensors: by bare name.
      notes: what was chosen and what was left out, one line each.
    """

    format: Format
    tensors: Tensors
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Candidate:
    prefix: str
    format: Format
    matches: int

    @property
    def is_likely(self) -> bool:
        # Not all: a damaged generator must be reported, not replaced by its average beside it.
        return 2 * self.matches > len(self.format.signature_keys)

    def __str__(self) -> str:
        return self.prefix or "the names without prefix"


def find_network(tensors: Tensors, where: object, section: str | None = None) -> FoundNetwork:
    """The network in a file, or in a `section` of it; `where` names the file in errors.

    Raises:
      ValueError: no network that is known, several that might be meant, or no such section.
    """
    bare = drop_wrappers(tensors)
    if section is not None:
        short = ".".join(part for part in section.split(".") if part not in WRAPPERS)
        bare = section_of(bare, short, where)
    found = _candidates(bare)
    if not found:
        raise ValueError(_nothing(bare, where))
    best, others = _choice(found, where)
    start = f"{best.prefix}." if best.prefix else ""
    inner = {n.removeprefix(start): tensor for n, tensor in bare.items() if n.startswith(start)}
    _check_model(inner, where)
    notes = []
    if best.prefix:
        notes.append(f"prefix {best.prefix} of the names is left out")
    if others:
        listed = ", ".join(f"{other.prefix} ({other.format.name})" for other in others)
        notes.append(f"not read, but there as well: {listed}; --section chooses")
    elif len(inner) < len(bare):
        rest = {name: tensor for name, tensor in bare.items() if not name.startswith(start)}
        notes.append(f"{len(rest)} tensors outside {best} are not read ({few(sections(rest))})")
    return FoundNetwork(best.format, inner, tuple(notes))


def _candidates(tensors: Tensors) -> list[_Candidate]:
    """Prefixes below which a network may be, the likeliest of each prefix, best first."""
    best: dict[str, _Candidate] = {}
    for (prefix, format_), count in _matches(tensors).items():
        if prefix not in best or count > best[prefix].matches:
            best[prefix] = _Candidate(prefix, WEIGHT_FORMATS[format_], count)
    return sorted(best.values(), key=lambda candidate: -candidate.matches)


def _matches(tensors: Tensors) -> dict[tuple[str, int], int]:
    """Signature keys that are there, by prefix and place in the list of formats."""
    formats: dict[str, list[int]] = {}
    for place, format_ in enumerate(WEIGHT_FORMATS):
        for key in format_.signature_keys.values():
            formats.setdefault(key.format(0), []).append(place)
    matches: collections.Counter[tuple[str, int]] = collections.Counter()
    for name in tensors:
        parts = name.split(".")
        for start in range(max(0, len(parts) - _MOST_SEGMENTS), len(parts)):
            for place in formats.get(".".join(parts[start:]), ()):
                matches[".".join(parts[:start]), place] += 1
    # Official layouts first: of those that match equally well the first counts.
    return dict(sorted(matches.items(), key=lambda item: item[0][1]))


def _choice(found: Sequence[_Candidate], where: object) -> tuple[_Candidate, list[_Candidate]]:
    """The candidate that is meant, and the other networks.

    Raises:
      ValueError: several of the same network, of which none is the usual one.
    """
    likely = [candidate for candidate in found if candidate.is_likely]
    if not likely:
        # Damaged: the most keys, so that it is reported by the tensors that it lacks.
        return found[0], []
    # The transformer of a file that holds all networks: `formats.py` lists it first.
    order = [format_.network for format_ in WEIGHT_FORMATS]
    network = min((candidate.format.network for candidate in likely), key=order.index)
    alike = [candidate for candidate in likely if candidate.format.network == network]
    usual = [one for one in alike if _PREFERRED in one.prefix.split(".") or not one.prefix]
    chosen = alike if len(alike) == 1 else usual
    if len(chosen) != 1:
        listed = " or ".join(f"--section {candidate.prefix}" for candidate in alike)
        raise ValueError(
            f"{where} holds {len(alike)} of {alike[0].format.name}s, and which one is meant is not "
            f"clear; add {listed}."
        )
    return chosen[0], [candidate for candidate in likely if candidate is not chosen[0]]


def _check_model(tensors: Tensors, where: object) -> None:
    for name in tensors:
        for start, model in _OTHER_MODELS.items():
            if name.startswith(start):
                raise ValueError(
                    f"{where} is {model}, which is not implemented here ({name}); give "
                    "the text-to-video files of Wan2.1, or of ShotStream."
                )


def _nothing(tensors: Tensors, where: object) -> str:
    names = list(tensors)
    if any(other_kind(name) or parse_key(name) for name in names[:100]):
        return f"{where} holds LoRA factors and no network; give it with --lora, and a base."
    return (
        f"{where} holds none of the networks known here ({len(names)} tensors, the first: "
        f"{few(names) or 'none'}); choose another file or section."
    )
