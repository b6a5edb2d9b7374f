"""Parameter trees from a file's tensors, and back: complete or refused, one tensor at a time."""

import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from shotstream_jax.checkpoints.naming import (
    NameTable,
    ParamPath,
    TensorMapping,
    to_official,
    to_ours,
)
from shotstream_jax.checkpoints.report import PartialWeightsError, compare
from shotstream_jax.checkpoints.tensors import LazyArray, Tensor, Tensors, check_finite, unwrap

Leaves = Mapping[ParamPath, Tensor]
"""The arrays of a parameter tree, by path."""


def build_params(
    table: NameTable,
    tensors: Tensors,
    dtype: DTypeLike | None = None,
    *,
    scratch: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Fill a parameter tree from a file's tensors, stacked over layers where the table says so.

    Names may carry torch's wrapper prefixes. `dtype` casts, `None` keeps what the file has. With
    `scratch`, a folder, the arrays live in files there: memory then holds one tensor at a time.

    Raises:
      PartialWeightsError: tensors are missing, unexpected, of another shape, or no floats.
      ValueError: values that are not finite, or not after the cast.
    """
    tensors = unwrap(tensors)
    dtype = None if dtype is None else np.dtype(dtype)
    # Before any array is allocated: a partial network is refused in seconds.
    report = compare(table, tensors, dtype)
    if not report.whole:
        raise PartialWeightsError(report)
    tree: dict[str, Any] = {}
    for path, names in _by_leaf(table).items():
        # Layers of one leaf may have been saved in several formats; the widest holds them all.
        leaf_dtype = dtype or np.result_type(*(tensors[name].dtype for name in names))
        leaf = _allocate(_leaf_shape(table, names), leaf_dtype, path, scratch)
        for name in names:
            mapping = table[name]
            stored = np.asarray(tensors[name])
            with np.errstate(over="ignore"):
                values = stored.astype(leaf_dtype, copy=False)
            check_finite(values, name, stored)
            leaf[... if mapping.layer is None else mapping.layer] = to_ours(values, mapping.layout)
        _put(tree, path, _reopened(leaf))
    return tree


def export_params(table: NameTable, params: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Give back a tree's arrays by official name and in official layout, leaf by leaf.

    Raises:
      ValueError: the tree and the table do not have the same leaves or shapes.
    """
    for name, tensor in export_tensors(table, leaves_of(params)).items():
        yield name, np.asarray(tensor)


def check_leaves(table: NameTable, leaves: Mapping[ParamPath, Any]) -> None:
    """Compare the leaves of a tree, which have shapes, with those that a config stands for.

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


def export_tensors(table: NameTable, leaves: Leaves) -> Tensors:
    """A tree's arrays by official name; a leaf is read when the first of its layers is needed.

    Raises:
      ValueError: the leaves are not those of the table, or of other shapes.
    """
    check_leaves(table, leaves)
    # Tables list all layers of a leaf in a row: holding the last leaf read is enough.
    read = functools.lru_cache(maxsize=1)(lambda path: np.asarray(leaves[path]))
    return {
        name: LazyArray(table[name].shape, leaves[path].dtype, _exporter(table[name], read))
        for path, names in _by_leaf(table).items()
        for name in names
    }


def leaves_of(params: Mapping[str, Any], path: ParamPath = ()) -> dict[ParamPath, Tensor]:
    """The arrays of a nested dict, by path."""
    leaves: dict[ParamPath, Tensor] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            leaves |= leaves_of(value, (*path, key))
        else:
            leaves[*path, key] = value
    return leaves


def _by_leaf(table: NameTable) -> dict[ParamPath, list[str]]:
    # Dicts keep the table's order, which lists the layers of a leaf from the first to the last.
    names: dict[ParamPath, list[str]] = {}
    for name, mapping in table.items():
        names.setdefault(mapping.path, []).append(name)
    return names


def _leaf_shape(table: NameTable, names: list[str]) -> tuple[int, ...]:
    mapping = table[names[0]]
    # A broadcast scalar of the official shape costs one byte; its layout gives our shape.
    one = to_ours(np.broadcast_to(np.int8(0), mapping.shape), mapping.layout).shape
    return one if mapping.layer is None else (len(names), *one)


def _allocate(
    shape: tuple[int, ...], dtype: np.dtype, path: ParamPath, scratch: pathlib.Path | None
) -> np.ndarray:
    if scratch is None:
        return np.empty(shape, dtype)
    # A sparse file: the disk gives out blocks as layers are written.
    return np.memmap(scratch / ".".join(path), dtype, mode="w+", shape=shape)


def _reopened(leaf: np.ndarray) -> np.ndarray:
    """Map a finished file again, read-only: written pages no longer count as this process's."""
    if not isinstance(leaf, np.memmap):
        return leaf
    return np.memmap(str(leaf.filename), leaf.dtype, mode="r", shape=leaf.shape)


def _put(tree: dict[str, Any], path: ParamPath, leaf: np.ndarray) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaf


def _exporter(
    mapping: TensorMapping, read: Callable[[ParamPath], np.ndarray]
) -> Callable[[], np.ndarray]:
    def export() -> np.ndarray:
        leaf = read(mapping.path)
        one = leaf if mapping.layer is None else leaf[mapping.layer]
        return to_official(one, mapping.layout, mapping.shape)

    return export
