"""Tensors of a file into our parameter trees, and back; whole or not at all, one at a time."""

import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from shotstream_jax.checkpoints.naming import NameTable, Slot, to_official, to_ours
from shotstream_jax.checkpoints.report import PartialWeightsError, compare
from shotstream_jax.checkpoints.tensors import LazyArray, Tensor, Tensors, unwrap

Path = tuple[str, ...]
Tree = dict[str, Any]
Leaves = Mapping[Path, Tensor]
"""The arrays of a parameter tree, by path."""


def build_params(
    table: NameTable,
    tensors: Tensors,
    dtype: DTypeLike | None = None,
    *,
    scratch: pathlib.Path | None = None,
) -> Tree:
    """Fill a parameter tree from a file's tensors, stacked over layers where the table says so.

    Names may carry torch's wrapper prefixes. `dtype` casts, `None` keeps what the file has. With
    `scratch`, a folder, the arrays live in files there: memory then holds one tensor at a time.

    Raises:
      PartialWeightsError: tensors are missing, unexpected or of another shape.
    """
    tensors = unwrap(tensors)
    dtype = None if dtype is None else np.dtype(dtype)
    report = compare(table, tensors, dtype)
    if not report.whole:
        raise PartialWeightsError(report)
    tree: Tree = {}
    for path, names in _by_leaf(table).items():
        leaf_dtype = dtype or np.result_type(*(tensors[name].dtype for name in names))
        leaf = _allocate(_leaf_shape(table, names), leaf_dtype, path, scratch)
        for name in names:
            slot = table[name]
            leaf[... if slot.layer is None else slot.layer] = to_ours(
                np.asarray(tensors[name]), slot.layout
            )
        _put(tree, path, _settled(leaf))
    return tree


def export_params(table: NameTable, params: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Give back a tree's arrays by official name and in official layout, leaf by leaf.

    Raises:
      ValueError: the tree and the table do not have the same leaves or shapes.
    """
    for name, tensor in export_tensors(table, leaves_of(params)).items():
        yield name, np.asarray(tensor)


def export_tensors(table: NameTable, leaves: Leaves) -> Tensors:
    """Name a tree's arrays officially; a leaf is read when the first of its layers is asked for.

    Raises:
      ValueError: the leaves are not those of the table, or of other shapes.
    """
    by_leaf = _by_leaf(table)
    for path in [*by_leaf, *leaves]:
        expected = _leaf_shape(table, by_leaf[path]) if path in by_leaf else None
        found = leaves[path].shape if path in leaves else None
        if expected != found:
            raise ValueError(
                f"Parameter {'.'.join(path)} has shape {found}, and the official layout has "
                f"{expected}; the sizes in config.json are not those of these weights."
            )
    # Layers of a leaf follow one another, so that holding the last leaf is enough.
    read = functools.lru_cache(maxsize=1)(lambda path: np.asarray(leaves[path]))
    return {
        name: LazyArray(table[name].shape, leaves[path].dtype, _exporter(table[name], read))
        for path, names in by_leaf.items()
        for name in names
    }


def leaves_of(params: Mapping[str, Any], path: Path = ()) -> dict[Path, Tensor]:
    """The arrays of a nested dict, by path."""
    leaves: dict[Path, Tensor] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            leaves |= leaves_of(value, (*path, key))
        else:
            leaves[*path, key] = value
    return leaves


def _by_leaf(table: NameTable) -> dict[Path, list[str]]:
    names: dict[Path, list[str]] = {}
    for name, slot in table.items():
        names.setdefault(slot.path, []).append(name)
    return names


def _leaf_shape(table: NameTable, names: list[str]) -> tuple[int, ...]:
    slot = table[names[0]]
    one = to_ours(np.broadcast_to(np.int8(0), slot.shape), slot.layout).shape
    return one if slot.layer is None else (len(names), *one)


def _allocate(
    shape: tuple[int, ...], dtype: np.dtype, path: Path, scratch: pathlib.Path | None
) -> np.ndarray:
    if scratch is None:
        return np.empty(shape, dtype)
    return np.memmap(scratch / ".".join(path), dtype, mode="w+", shape=shape)


def _settled(leaf: np.ndarray) -> np.ndarray:
    """Map a finished file anew, so that the pages written no longer count as this process's."""
    if not isinstance(leaf, np.memmap):
        return leaf
    return np.memmap(str(leaf.filename), leaf.dtype, mode="r", shape=leaf.shape)


def _put(tree: Tree, path: Path, leaf: np.ndarray) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaf


def _exporter(slot: Slot, read: Callable[[Path], np.ndarray]) -> Callable[[], np.ndarray]:
    def export() -> np.ndarray:
        leaf = read(slot.path)
        one = leaf if slot.layer is None else leaf[slot.layer]
        return to_official(one, slot.layout, slot.shape)

    return export
