"""LoRA factors in peft's layout: merged into base weights on the way, or kept as a tree beside.

An adapted kernel is `W + scale * B A` in torch's orientation, [out, in], where `scale` is
alpha / rank. Files hold no alpha; unless told, it is the rank.

Source: Hu et al. 2021 (LoRA), section 4.1; public ShotStream repository,
tools/merge_lora_checkpoint.py; peft, LoraLayer.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from shotstream_jax.checkpoints.naming import Layout, NameTable, Slot
from shotstream_jax.checkpoints.tensors import LazyArray, Tensor, Tensors

_PREFIX = "base_model.model."
_HALVES = {"a": "lora_A.weight", "b": "lora_B.weight"}

Place = tuple[tuple[str, ...], int | None]


@dataclasses.dataclass(frozen=True)
class LoRA:
    """The factors of a file.

    Attributes:
      tensors: by peft's name, without `base_model.model.` and the adapter's name.
      rank: inner width of all of them.
      alpha: numerator of the scale.
    """

    tensors: Tensors
    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by."""
        return self.alpha / self.rank


def read_lora(tensors: Tensors, where: object, alpha: float | None = None) -> LoRA:
    """Recognise a file's LoRA factors; `where` names the file in errors.

    Raises:
      ValueError: there are none, something else is among them, or their ranks differ.
    """
    factors: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(_PREFIX)
        for half in _HALVES.values():
            kind, suffix = half.split(".")
            short = short.replace(f".{kind}.default.{suffix}", f".{half}")
        factors[short] = tensor
    strays = [name for name in factors if not name.endswith(tuple(_HALVES.values()))]
    if strays or not factors:
        raise ValueError(
            f"{where} is no LoRA file: of {len(factors)} tensors {len(strays)} are not "
            f"lora_A or lora_B ({', '.join(strays[:3])}); give the file that peft saved."
        )
    ranks = {
        tensor.shape[0 if name.endswith(_HALVES["a"]) else -1] if tensor.shape else 0
        for name, tensor in factors.items()
    }
    if len(ranks) != 1:
        raise ValueError(f"{where} mixes LoRA ranks {sorted(ranks)}; only one rank a file is read.")
    rank = ranks.pop()
    return LoRA(factors, rank, float(rank if alpha is None else alpha))


def lora_names(table: NameTable, lora: LoRA) -> dict[str, Slot]:
    """Slots of a tree of factors: `a` [in, rank] and `b` [rank, out] for each adapted kernel.

    `table` is that of the official network. A kernel that the file adapts in one layer is expected
    in all of them.
    """
    adapted = {
        slot.path
        for name, slot in table.items()
        for half in _HALVES.values()
        if name.removesuffix("weight") + half in lora.tensors
    }
    return {
        name.removesuffix("weight") + _HALVES[half]: Slot(
            (*slot.path[:-1], half), Layout.LINEAR, shape, slot.layer
        )
        for name, slot in table.items()
        if slot.path in adapted
        for half, shape in _shapes(slot, lora.rank).items()
    }


def merge_lora(table: NameTable, tensors: Tensors, names: NameTable, lora: LoRA) -> Tensors:
    """Base tensors, of which the adapted ones are merged in float32 when they are read.

    Kernels are matched by their place, so that a base in any layout (`table`) will do; `names` is
    `lora_names`, and the factors must be complete.

    Raises:
      ValueError: a factor has no kernel in the base.
    """
    factors: dict[Place, dict[str, Tensor]] = {}
    for name, slot in names.items():
        place = ((*slot.path[:-1], "kernel"), slot.layer)
        factors.setdefault(place, {})[slot.path[-1]] = lora.tensors[name]
    merged = dict(tensors)
    for name, slot in table.items():
        pair = factors.pop((slot.path, slot.layer), None)
        if pair is not None:
            merged[name] = _merged(tensors[name], pair, lora.scale)
    if factors:
        path, layer = next(iter(factors))
        raise ValueError(
            f"LoRA adapts {'.'.join(path)} of layer {layer}, which the base does not have; "
            "give the base that it was trained on."
        )
    return merged


def merged_kernel(
    kernel: Float[np.ndarray, "out in"],
    a: Float[np.ndarray, "rank in"],
    b: Float[np.ndarray, "out rank"],
    scale: float,
) -> Float[np.ndarray, "out in"]:
    """Add the product of two factors to a kernel, in float32, and round once to its dtype."""
    update = np.asarray(b, np.float32) @ np.asarray(a, np.float32)
    return (np.asarray(kernel, np.float32) + np.float32(scale) * update).astype(kernel.dtype)


def _merged(kernel: Tensor, pair: Mapping[str, Tensor], scale: float) -> LazyArray:
    def read() -> np.ndarray:
        return merged_kernel(*map(np.asarray, (kernel, pair["a"], pair["b"])), scale)

    return LazyArray(kernel.shape, kernel.dtype, read)


def _shapes(slot: Slot, rank: int) -> dict[str, tuple[int, int]]:
    out, into = slot.shape
    return {"a": (rank, into), "b": (out, rank)}
