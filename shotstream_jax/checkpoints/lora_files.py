"""LoRA factors in peft's layout: merged into base weights, or kept as a tree beside them.

An adapted kernel is `W + scale * B A` in torch's orientation, [out, in], where `scale` is
alpha / rank. Files hold no alpha; unless it is passed in, it is the rank (a scale of 1).

Source: Hu et al. 2021 (LoRA), section 4.1; public ShotStream repository,
tools/merge_lora_checkpoint.py; peft, LoraLayer.
"""

import dataclasses
from collections.abc import Mapping, Set

import numpy as np
from jaxtyping import Float

from shotstream_jax.checkpoints.naming import Layout, NameTable, ParamPath, TensorMapping
from shotstream_jax.checkpoints.tensors import LazyArray, Tensor, Tensors

# What peft puts before the name of every wrapped module.
_PREFIX = "base_model.model."
_HALVES = {"a": "lora_A.weight", "b": "lora_B.weight"}


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
    # Some versions of peft write the adapter's name, `default`, into the key and others do not.
    factors = {
        name.removeprefix(_PREFIX).replace(".default.weight", ".weight"): tensor
        for name, tensor in tensors.items()
    }
    strays = [
        name
        for name, tensor in factors.items()
        if not name.endswith(tuple(_HALVES.values())) or len(tensor.shape) != 2
    ]
    if strays or not factors:
        raise ValueError(
            f"{where} is no LoRA file: of {len(factors)} tensors {len(strays)} are not "
            f"lora_A or lora_B matrices ({', '.join(strays[:3])}); give the file that peft saved."
        )
    # A is [rank, in] and B is [out, rank].
    ranks = {t.shape[0 if name.endswith(_HALVES["a"]) else 1] for name, t in factors.items()}
    if len(ranks) != 1 or 0 in ranks:
        raise ValueError(f"{where} has LoRA ranks {sorted(ranks)}; one above 0 a file is read.")
    rank = ranks.pop()
    return LoRA(factors, rank, float(rank if alpha is None else alpha))


def adapted_kernels(table: NameTable, lora: LoRA) -> set[ParamPath]:
    """Kernels of the network in `table`, the official one, that have a factor in any layer."""
    # Any layer and either half: what is then missing is reported by name, not skipped.
    return {
        mapping.path
        for name, mapping in table.items()
        if mapping.layout is Layout.LINEAR
        and any(_factor(name, half) in lora.tensors for half in _HALVES)
    }


def lora_names(table: NameTable, kernels: Set[ParamPath], rank: int) -> dict[str, TensorMapping]:
    """Mappings of a tree of factors: `a` [in, rank] and `b` [rank, out] for each of the kernels.

    `table` is that of the official network; a kernel is adapted in all layers or in none.
    """
    names = {}
    for name, mapping in table.items():
        if mapping.path in kernels:
            out, into = mapping.shape
            for half, shape in (("a", (rank, into)), ("b", (out, rank))):
                path = (*mapping.path[:-1], half)
                names[_factor(name, half)] = TensorMapping(
                    path, Layout.LINEAR, shape, mapping.layer
                )
    return names


def merge_lora(table: NameTable, tensors: Tensors, names: NameTable, lora: LoRA) -> Tensors:
    """Base tensors, of which the adapted ones are merged in float32 when they are read.

    Kernels are matched by their path in our tree, so a base in any layout (`table`) is accepted.
    `names` is `lora_names`; the factors must be complete.

    Raises:
      ValueError: a factor has no kernel of its size in the base.
    """
    factors: dict[tuple[ParamPath, int | None], dict[str, Tensor]] = {}
    for name, mapping in names.items():
        kernel = (*mapping.path[:-1], "kernel")
        factors.setdefault((kernel, mapping.layer), {})[mapping.path[-1]] = lora.tensors[name]
    merged = dict(tensors)
    for name, mapping in table.items():
        pair = factors.pop((mapping.path, mapping.layer), None)
        # A base that lacks the tensor itself is refused as partial, which says more.
        if pair is not None and name in tensors:
            merged[name] = _merged(tensors[name], pair, lora.scale)
    if factors:
        path, layer = next(iter(factors))
        raise ValueError(
            f"LoRA adapts {'.'.join(path)} of layer {layer}, which the base does not have; "
            "give the base that it was trained on."
        )
    return merged


def merged_kernel(
    kernel: Float[np.ndarray, "out into"],
    a: Float[np.ndarray, "rank into"],
    b: Float[np.ndarray, "out rank"],
    scale: float,
) -> Float[np.ndarray, "out into"]:
    """Add the product of two factors to a kernel, in float32, and round once to its dtype."""
    # Factors may be bfloat16: products are summed over the rank, and to the kernel, before
    # rounding.
    update = np.asarray(b, np.float32) @ np.asarray(a, np.float32)
    return (np.asarray(kernel, np.float32) + np.float32(scale) * update).astype(kernel.dtype)


def _merged(kernel: Tensor, pair: Mapping[str, Tensor], scale: float) -> LazyArray:
    # Merged when read: memory holds one merged kernel, not a second transformer.
    def read() -> np.ndarray:
        a, b = np.asarray(pair["a"]), np.asarray(pair["b"])
        return merged_kernel(np.asarray(kernel), a, b, scale)

    return LazyArray(kernel.shape, kernel.dtype, read)


def _factor(kernel: str, half: str) -> str:
    return kernel.removesuffix("weight") + _HALVES[half]
