"""LoRA updates as trees beside a transformer's parameters: stored apart, or merged on devices."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from shotstream_jax.checkpoints.lora_files import LoRA, LowRankUpdate, Place, product
from shotstream_jax.checkpoints.naming import (
    Layout,
    NameTable,
    ParamPath,
    TensorMapping,
    to_ours,
)
from shotstream_jax.checkpoints.tensors import LazyArray, Tensor, Tensors
from shotstream_jax.model_config import LoRAConfig
from shotstream_jax.models.lora import ALL_LINEARS

_KERNELS = frozenset(("blocks", *target, "kernel") for target in ALL_LINEARS)
"""Kernels that `models/lora.py` adapts: those that are stacked over layers."""


def lora_names(table: NameTable, ranks: Mapping[ParamPath, int]) -> dict[str, TensorMapping]:
    """Mappings of a tree of factors: `a` [in, rank] and `b` [rank, out] for each of the kernels.

    `table` is that of the official network; a kernel is adapted in all layers or in none.
    """
    names = {}
    for name, mapping in table.items():
        if mapping.path in ranks:
            out, into = mapping.shape
            rank = ranks[mapping.path]
            for half, shape in (("a", (rank, into)), ("b", (out, rank))):
                path = (*mapping.path[:-1], half)
                names[factor_name(name, half)] = TensorMapping(
                    path, Layout.LINEAR, shape, mapping.layer
                )
    return names


def factor_name(kernel: str, half: str) -> str:
    """Peft's name of a factor (`a` or `b`) of an official kernel."""
    return kernel.removesuffix("weight") + {"a": "lora_A.weight", "b": "lora_B.weight"}[half]


def kept_factors(table: NameTable, loras: Sequence[LoRA]) -> tuple[NameTable, Tensors, LoRAConfig]:
    """The factors of LoRAs as one network to be stored beside the transformer.

    Kernels of which some layers have no factors get zeros there; several LoRAs become one, whose
    rank is the sum of theirs.

    Raises:
      ValueError: changes that are no product of factors of a block's kernel.
    """
    for path, layer in _dense_places(loras):
        raise ValueError(
            f"The LoRA changes {'.'.join(path)}{'' if layer is None else f' of layer {layer}'}, "
            "which cannot be kept beside the transformer; leave out --keep-lora to merge it."
        )
    config, own_scale = _shared_scale(loras)
    ranks = dict.fromkeys((path for lora in loras for path, _ in lora.updates), config.rank)
    tensors: dict[str, Tensor] = {}
    for name, mapping in table.items():
        if mapping.path in ranks:
            found = _factors(loras, (mapping.path, mapping.layer))
            for half in "ab":
                tensors[factor_name(name, half)] = _padded(
                    found, half, mapping.shape, config.rank, own_scale
                )
    return lora_names(table, ranks), tensors, config


def device_updates(
    table: NameTable, loras: Sequence[LoRA]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """What LoRAs add to a parameter tree: factors for `merge` with a scale of 1, and differences.

    Differences are whole leaves, float32 and zero in layers that are not named.

    Raises:
      ValueError: values that are not finite.
    """
    paths = {path for lora in loras for path, _ in lora.updates}
    dense = {path for path, _ in _dense_places(loras)}
    factors: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    by_path: dict[ParamPath, list[TensorMapping]] = {}
    for mapping in table.values():
        by_path.setdefault(mapping.path, []).append(mapping)
    for path in sorted(paths):
        layers = by_path[path]
        if path in dense:
            parts = [_difference(loras, mapping) for mapping in layers]
            _put(changes, path, parts[0] if layers[0].layer is None else np.stack(parts))
            continue
        # A rank for every kernel: a LoRA may have a larger one in some of them.
        most = max(_rank(loras, (path, mapping.layer)) for mapping in layers)
        for half in "ab":
            parts = [
                np.asarray(
                    _padded(_factors(loras, (path, mapping.layer)), half, mapping.shape, most, None)
                ).T
                for mapping in layers
            ]
            _put(factors, (*path[:-1], half), _finite(np.stack(parts), path))
    return factors or None, changes


def _dense_places(loras: Sequence[LoRA]) -> list[Place]:
    return [
        place
        for lora in loras
        for place, update in lora.updates.items()
        if not isinstance(update, LowRankUpdate) or place[0] not in _KERNELS
    ]


def _factors(loras: Sequence[LoRA], place: Place) -> list[LowRankUpdate]:
    updates = [lora.updates.get(place) for lora in loras]
    return [update for update in updates if isinstance(update, LowRankUpdate)]


def _rank(loras: Sequence[LoRA], place: Place) -> int:
    return sum(update.rank for update in _factors(loras, place))


def _shared_scale(loras: Sequence[LoRA]) -> tuple[LoRAConfig, float | None]:
    """Rank and alpha to store, and the scale of all factors; `None` where they have several."""
    updates = [
        update
        for lora in loras
        for update in lora.updates.values()
        if isinstance(update, LowRankUpdate)
    ]
    scales = {update.scale for update in updates}
    places = itertools.chain.from_iterable(lora.updates for lora in loras)
    rank = max(_rank(loras, place) for place in places)
    if len(scales) == 1:
        return LoRAConfig(rank=rank, alpha=scales.copy().pop() * rank), scales.pop()
    return LoRAConfig(rank=rank, alpha=float(rank)), None


def _padded(
    updates: Sequence[LowRankUpdate],
    half: str,
    shape: tuple[int, ...],
    rank: int,
    own_scale: float | None,
) -> Tensor:
    """One factor of all updates side by side, with zeros up to `rank`: [rank, in] or [out, rank].

    Without `own_scale`, which is applied to the sum later, each update's scale goes into `b`.
    """
    wanted = (rank, shape[1]) if half == "a" else (shape[0], rank)
    if len(updates) == 1 and own_scale is not None and updates[0].rank == rank:
        only = updates[0].a if half == "a" else updates[0].b
        if only.shape == wanted:
            return only

    def read() -> np.ndarray:
        padded, start = np.zeros(wanted, np.float32), 0
        for update in updates:
            inner = slice(start, start + update.rank)
            if half == "a":
                padded[inner] = np.asarray(update.a).astype(np.float32).reshape(update.rank, -1)
            else:
                scale = np.float32(1 if own_scale is not None else update.scale)
                columns = np.asarray(update.b).astype(np.float32).reshape(-1, update.rank)
                padded[:, inner] = scale * columns
            start += update.rank
        return padded

    return LazyArray(wanted, np.dtype(np.float32), read)


def _difference(loras: Sequence[LoRA], mapping: TensorMapping) -> np.ndarray:
    """The sum of all changes of one tensor, laid out as ours."""
    total = np.zeros(mapping.shape, np.float32)
    for lora in loras:
        update = lora.updates.get((mapping.path, mapping.layer))
        if update is not None:
            total += product(update).reshape(mapping.shape)
    return _finite(to_ours(total, mapping.layout), mapping.path)


def _finite(values: np.ndarray, path: ParamPath) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError(f"The LoRA's change of {'.'.join(path)} is not finite; fetch it again.")
    return values


def _put(tree: dict[str, Any], path: ParamPath, leaf: np.ndarray) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaf
