"""Our checkpoint folder: one Orbax item a network, with the sizes it was made for beside it.

    config.json      format, version, sizes of the networks, rollout settings, origin of weights
    files.json       size and checksum of every other file
    dit/ vae/ text/  parameters; leaves under `blocks` are stored layer by layer
    lora/            optional factors that belong to dit/
    tokenizer/       tokenizer.json

A folder is written under a hidden name and renamed when complete: half a checkpoint never shows.
"""

import contextlib
import functools
import json
import logging
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.typing import DTypeLike
from orbax.checkpoint import type_handlers

from shotstream_jax.checkpoints import integrity
from shotstream_jax.checkpoints.naming import ParamPath
from shotstream_jax.checkpoints.tensors import LazyArray
from shotstream_jax.files import atomic_folder
from shotstream_jax.model_config import CheckpointConfig
from shotstream_jax.strict_json import load_object
from shotstream_jax.typing import Params, PyTree

CONFIG, TOKENIZER = "config.json", "tokenizer"

# 64 MiB: a few pieces are in flight at once, far below a leaf of the 14B model (5.7 GB stacked, in
# bfloat16), and each device of a mesh reads little more than its own share.
_PIECE_BYTES = 1 << 26
"""Largest piece of a leaf that is compressed, or read for one device, at once."""

# A config has 10 KB, most of it the report of a conversion.
_LARGEST_CONFIG = 1 << 24
"""Size of a `config.json` beyond which it is not even parsed."""

# Metadata is some hundred bytes a leaf, and a network has tens of leaves; a piece of values is
# mostly megabytes.
_DESCRIPTION_BYTES = 1 << 20
"""Files up to this size describe a network; larger ones are values."""

# A miniature is then a few files instead of one for every layer of every leaf; for a large network
# the gathering would cost its size in memory.
_DATABASE_BYTES = 1 << 26
"""Networks up to this size are stored in one database, which Orbax gathers in memory first; larger
ones in a file a piece."""

ParamTree = Mapping[str, Any]
"""Parameters on the host or on devices: nested dicts of arrays."""


def save_checkpoint(
    folder: pathlib.Path,
    networks: Mapping[str, ParamTree],
    config: CheckpointConfig,
    tokenizer: pathlib.Path | None = None,
) -> None:
    """Write a whole checkpoint: parameters by network, `config`, and a copy of a tokenizer file.

    Raises:
      FileExistsError: something is at `folder` already.
      ValueError: `config` does not describe the networks given.
    """
    with creating_checkpoint(folder, config, tokenizer) as partial:
        for name, params in networks.items():
            write_network(partial, name, params)


@contextlib.contextmanager
def creating_checkpoint(
    folder: pathlib.Path, config: CheckpointConfig, tokenizer: pathlib.Path | None = None
) -> Iterator[pathlib.Path]:
    """A hidden folder for `write_network`, which becomes `folder` if all goes well.

    Raises:
      FileExistsError: something is at `folder` already.
      ValueError: `config` does not describe the networks that were written.
    """
    with atomic_folder(folder) as partial:
        yield partial
        written = sorted(path.name for path in partial.iterdir())
        if written != sorted(config.items):
            raise ValueError(
                f"The config describes networks {', '.join(sorted(config.items))} and "
                f"{', '.join(written)} were written; make them the same."
            )
        if tokenizer is not None:
            (partial / TOKENIZER).mkdir()
            shutil.copyfile(tokenizer, partial / TOKENIZER / "tokenizer.json")
        content = json.dumps(config.to_json(), indent=1)
        (partial / CONFIG).write_text(content + "\n", encoding="utf-8")
        # Last: the list is of everything else in the folder.
        integrity.write_checksums(partial)


def write_network(partial: pathlib.Path, name: str, params: ParamTree) -> None:
    """Write one network's parameters as item `name`."""
    args = ocp.args.PyTreeSave(params, save_args=jax.tree_util.tree_map_with_path(_stored, params))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    with _checkpointer(one_database=size <= _DATABASE_BYTES) as checkpointer:
        checkpointer.save(partial.absolute() / name, args=args)
    # Drop Orbax's commit marker: it holds an absolute path of the machine that wrote it.
    (partial / name / "commit_success.txt").unlink(missing_ok=True)


def read_config(folder: pathlib.Path) -> CheckpointConfig:
    """Read `config.json` of a checkpoint.

    Raises:
      FileNotFoundError: no such folder, or no checkpoint in it.
      ValueError: a config that is damaged, of another program or version, or that says something
        that is not known here.
    """
    path = folder / CONFIG
    if not path.is_file():
        # Not `exists`: that a file is no folder is another mistake than a wrong path.
        absent = "is a file, so it has no" if folder.is_file() else "does not exist, so it has no"
        what = "has no" if folder.is_dir() else absent
        raise FileNotFoundError(
            f"{folder} {what} {CONFIG}; give a checkpoint folder that `shotstream convert` wrote."
        )
    size = path.stat().st_size
    if size > _LARGEST_CONFIG:
        raise ValueError(
            f"{path} has {size} bytes, and at most {_LARGEST_CONFIG} are read; fetch it again."
        )
    return CheckpointConfig.from_json(load_object(path), str(path))


def load_network(
    folder: pathlib.Path,
    name: str,
    *,
    dtype: DTypeLike | None = None,
    shardings: PyTree[jax.sharding.Sharding] | None = None,
) -> Params:
    """Load one network onto devices, each reading its own part, cast to `dtype` if given.

    `shardings` is one for each leaf, or for each branch, or one for all; without it everything is
    on the first local device.

    Raises:
      FileNotFoundError: no checkpoint in the folder.
      ValueError: the network is not in it, or is damaged.
    """
    item, stored = _open(folder, name)
    if shardings is None:
        shardings = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, dtype or leaf.dtype, sharding=sharding
        ),
        stored,
        jax.tree.broadcast(shardings, stored),
    )
    restore_args = ocp.checkpoint_utils.construct_restore_args(target)
    with _checkpointer() as checkpointer:
        return checkpointer.restore(item, args=ocp.args.PyTreeRestore(target, restore_args))


def network_shapes(folder: pathlib.Path, name: str) -> PyTree[Any]:
    """The tree of one network as it is stored: shapes and dtypes, to choose shardings by.

    Raises:
      FileNotFoundError: no checkpoint in the folder.
      ValueError: the network is not in it, or its description is damaged.
    """
    return _open(folder, name, checked_bytes=_DESCRIPTION_BYTES)[1]


def stored_leaves(folder: pathlib.Path, name: str) -> dict[ParamPath, LazyArray]:
    """The parameters of one network by path, each read to the host when it is needed.

    Raises:
      FileNotFoundError: no checkpoint in the folder.
      ValueError: the network is not in it, or is damaged.
    """
    item, stored = _open(folder, name)
    leaves, structure = jax.tree_util.tree_flatten_with_path(stored)

    # Orbax restores whole trees; placeholders leave out every leaf but one.
    def read(index: int) -> np.ndarray:
        only = [ocp.PLACEHOLDER] * len(leaves)
        only[index] = leaves[index][1]
        args = [ocp.RestoreArgs(restore_type=np.ndarray)] * len(leaves)
        with _checkpointer() as checkpointer:
            tree = checkpointer.restore(
                item,
                args=ocp.args.PyTreeRestore(structure.unflatten(only), structure.unflatten(args)),
            )
        return jax.tree.leaves(tree)[index]

    return {
        tuple(key.key for key in path): LazyArray(
            tuple(leaf.shape), np.dtype(leaf.dtype), functools.partial(read, index)
        )
        for index, (path, leaf) in enumerate(leaves)
    }


def _open(
    folder: pathlib.Path, name: str, checked_bytes: int | None = None
) -> tuple[pathlib.Path, Any]:
    """Where a network is stored, and the shapes and dtypes of its leaves."""
    read_config(folder).require(name)
    integrity.verify(folder, CONFIG)
    integrity.verify(folder, name, checked_bytes)
    item = folder.absolute() / name
    with _checkpointer() as checkpointer:
        stored = checkpointer.metadata(item).item_metadata
    if stored is None:
        raise ValueError(f"{item} does not say what it holds; convert or fetch it again.")
    return item, stored.tree


@contextlib.contextmanager
def _checkpointer(*, one_database: bool = False) -> Iterator[ocp.Checkpointer]:
    arrays = type_handlers.create_type_handler_registry(
        # Host arrays are memory maps of converted files; a deep copy would bring all of them in.
        (np.ndarray, type_handlers.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, type_handlers.ArrayHandler()),
    )
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=one_database, type_handler_registry=arrays)
    log = logging.getLogger("absl")
    log.addFilter(_is_news)
    try:
        with ocp.Checkpointer(handler) as checkpointer:
            yield checkpointer
    finally:
        log.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Orbax warns that there is no database to merge, which is what was asked for."""
    return "Skipping merge of OCDBT" not in record.getMessage()


def _stored(path: tuple[Any, ...], leaf: Any) -> ocp.SaveArgs:
    """How a leaf is stored: one layer a piece, so that every piece is contiguous."""
    del leaf
    # Only leaves under `blocks` are stacked over layers.
    layers = (0,) if path[0].key == "blocks" else ()
    return ocp.SaveArgs(shard_axes=layers, chunk_byte_size=_PIECE_BYTES)
