"""A checkpoint stored again in another dtype, as trained float32 weights are for release."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shotstream_jax.checkpoints.manager import (
    TOKENIZER,
    creating_checkpoint,
    load_network,
    read_config,
    write_network,
)


def cast_checkpoint(
    folder: pathlib.Path,
    output: pathlib.Path,
    dtype: DTypeLike,
    *,
    started: Callable[[str], None] = lambda name: None,
) -> None:
    """Write a checkpoint again with every array in another dtype; all else stays as it is.

    `started` is called with the name of each network before it is written.

    Raises:
      FileExistsError: something is at `output` already.
      FileNotFoundError: no checkpoint in the folder.
      ValueError: it is damaged, or has values that are not finite in the other dtype.
    """
    config = read_config(folder)
    tokenizer = folder / TOKENIZER / "tokenizer.json"
    with creating_checkpoint(output, config, tokenizer if tokenizer.is_file() else None) as partial:
        # One network at a time: memory holds the largest and not the model.
        for name in config.items:
            started(name)
            params = load_network(folder, name, dtype=dtype)
            for path, leaf in jax.tree_util.tree_leaves_with_path(params):
                # On the device, a leaf at a time: only whether any is not finite comes back.
                if not jnp.isfinite(leaf).all():
                    raise ValueError(
                        f"{name}{jax.tree_util.keystr(path)} of {folder} has values that are not "
                        f"finite as {np.dtype(dtype)}; keep it as float32, or take another state."
                    )
            write_network(partial, name, params)
