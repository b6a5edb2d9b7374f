"""Conversions of models: official weights into our checkpoint folder, and back into one file."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from shotstream_jax.checkpoints.formats import OFFICIAL_FORMATS
from shotstream_jax.checkpoints.lora_files import LoRA, LowRankUpdate, merge_lora
from shotstream_jax.checkpoints.lora_trees import factor_name, lora_names
from shotstream_jax.checkpoints.manager import (
    creating_checkpoint,
    read_config,
    stored_leaves,
    write_network,
)
from shotstream_jax.checkpoints.naming import NameTable
from shotstream_jax.checkpoints.param_trees import build_params, export_tensors
from shotstream_jax.checkpoints.report import MatchReport, PartialWeightsError, compare
from shotstream_jax.checkpoints.safetensors_files import write_safetensors
from shotstream_jax.checkpoints.tensors import LazyArray, Tensor, Tensors, check_finite
from shotstream_jax.checkpoints.torch_writer import write_torch
from shotstream_jax.checkpoints.weight_sources import Source
from shotstream_jax.model_config import CheckpointConfig, LoRAConfig, RolloutConfig, check_fit


def report_on(source: Source, dtype: DTypeLike | None = None) -> dict[str, MatchReport]:
    """Match every network's tensors with its name table, reading no values."""
    # Names, shapes and dtypes of every format are in headers, so no values are read.
    cast = None if dtype is None else np.dtype(dtype)
    return {name: compare(part.table, part.tensors, cast) for name, part in source.networks.items()}


def refuse_misfits(source: Source) -> None:
    """See that the networks of a source meet at equal widths, as those of one release do.

    Raises:
      ValueError: networks that do not fit one another, with both widths.
    """
    check_fit(
        {
            name: part.config
            for name, part in source.networks.items()
            if not isinstance(part.config, LoRAConfig)
        }
    )


def import_source(
    source: Source,
    folder: pathlib.Path,
    *,
    dtype: DTypeLike | None = None,
    rollout: RolloutConfig | None = None,
    started: Callable[[str], None] = lambda name: None,
) -> None:
    """Convert every network of a source into a new checkpoint folder.

    Arrays grow in files beside the output, so that memory holds a tensor and not a network. `dtype`
    casts, `None` keeps what the files have; `rollout` are settings to go with the weights;
    `started` is called with the name of each network before it is converted.

    Raises:
      FileExistsError: something is at `folder` already.
      PartialWeightsError: a network is not filled exactly; nothing was written.
      ValueError: values that are not finite.
    """
    # All networks are matched before the first is written: converting takes minutes.
    reports = report_on(source, dtype)
    for name, report in reports.items():
        if not report.whole:
            part = source.networks[name]
            raise PartialWeightsError(report, f"{part.kind} in {', '.join(part.files)}")
    configs = {name: part.config for name, part in source.networks.items()}
    config = CheckpointConfig(
        networks={
            name: sizes for name, sizes in configs.items() if not isinstance(sizes, LoRAConfig)
        },
        lora=next((sizes for sizes in configs.values() if isinstance(sizes, LoRAConfig)), None),
        rollout=rollout,
        weights="converted",
        source={
            name: {
                "format": part.kind,
                "files": part.files,
                "notes": part.notes,
                **dataclasses.asdict(reports[name]),
            }
            for name, part in source.networks.items()
        },
    )
    with creating_checkpoint(folder, config, source.tokenizer) as partial:
        for name, part in source.networks.items():
            started(name)
            # Beside the output: /tmp may be memory, or too small for a network.
            with tempfile.TemporaryDirectory(dir=partial) as scratch:
                params = build_params(
                    part.table, part.tensors, dtype, scratch=pathlib.Path(scratch)
                )
                write_network(partial, name, params)


def export_official(
    folder: pathlib.Path,
    file: pathlib.Path,
    *,
    network: str = "dit",
    dtype: DTypeLike | None = None,
) -> None:
    """Write one network of a checkpoint as the official file: `.pt`, `.pth` or `.safetensors`.

    A transformer in a torch file is laid out as ShotStream's releases are. LoRA factors that are
    kept apart are merged. The file appears when complete, and replaces what was there.

    Raises:
      FileNotFoundError: no checkpoint in the folder.
      ValueError: the network is not in it or is damaged or not finite, or the suffix is not known.
    """
    if file.suffix not in (".pt", ".pth", ".safetensors"):
        raise ValueError(
            f"{file} ends in {file.suffix!r}; official files end in .pt, .pth or .safetensors."
        )
    config = read_config(folder)
    table = OFFICIAL_FORMATS[network].names(config.network(network))
    tensors = export_tensors(table, stored_leaves(folder, network))
    if network == "dit" and config.lora is not None:
        tensors = _with_lora(folder, table, tensors, config.lora)
    # After merging, so that factors are added in float32 and rounded once.
    tensors = {
        name: _checked(name, tensor, np.dtype(tensor.dtype if dtype is None else dtype))
        for name, tensor in tensors.items()
    }
    if file.suffix == ".safetensors":
        write_safetensors(file, tensors)
    elif network == "dit":
        # As ShotStream saves it: {"generator": {"model.<name>": tensor}}.
        wrapped = {f"model.{name}": tensor for name, tensor in tensors.items()}
        write_torch(file, wrapped, section="generator")
    else:
        write_torch(file, tensors)


def _with_lora(
    folder: pathlib.Path, table: NameTable, tensors: Tensors, config: LoRAConfig
) -> Tensors:
    # Both factors of a layer are needed in turn, and they are small: all are read at once.
    leaves = {path: np.asarray(leaf) for path, leaf in stored_leaves(folder, "lora").items()}
    names = lora_names(table, {(*path[:-1], "kernel"): config.rank for path in leaves})
    factors = export_tensors(names, leaves)
    updates = {
        (mapping.path, mapping.layer): LowRankUpdate(
            factors[factor_name(name, "a")], factors[factor_name(name, "b")], config.scale
        )
        for name, mapping in table.items()
        if factor_name(name, "a") in factors
    }
    return merge_lora(table, tensors, [LoRA(updates, "")])


def _checked(name: str, tensor: Tensor, dtype: np.dtype) -> LazyArray:
    def read() -> np.ndarray:
        stored = np.asarray(tensor)
        with np.errstate(over="ignore"):
            values = stored.astype(dtype, copy=False)
        check_finite(values, name, stored)
        return values

    return LazyArray(tensor.shape, dtype, read)
