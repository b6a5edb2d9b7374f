"""Weights that are stored in 8 bits: scaled floats are multiplied out, integers are refused.

    X.weight        float8, X.scale_weight or X.weight_scale      ComfyUI, compressed-tensors
    X.weight        float8, X.weight_scale_inv, one for a block   DeepSeek
    scaled_fp8, X.comfy_quant                                     markers, no values of a network

Source: public ComfyUI, comfy/ops.py, scaled_fp8_ops; compressed-tensors; DeepSeek-V3, kernel.py,
weight_dequant.
"""

import json
from collections.abc import Iterator

import ml_dtypes
import numpy as np

from shotstream_jax.checkpoints.naming import NameTable
from shotstream_jax.checkpoints.tensors import LazyArray, Tensor, Tensors, few

FLOAT8 = (np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e5m2))
"""8-bit floats that weights are published in."""

_SCALES = ("scale_weight", "weight_scale", "weight_scale_inv")
# Scales of what goes into a layer, for arithmetic in 8 bits, which is not done here.
_INPUT_SCALES = ("scale_input", "input_scale")
_MARKERS = frozenset(
    {
        *("scaled_fp8", "comfy_quant", "n_averaged", "num_updates", "decay", "version"),
        *("step", "steps", "global_step", "epoch", "iteration", "freqs", "freqs_cos", "freqs_sin"),
    }
)
"""Last segments of tensors that describe a file, count steps, or hold tables that are computed."""

# A kernel's block in the files that have a scale for each.
_BLOCK = 128


def plain_weights(
    table: NameTable, tensors: Tensors, where: object
) -> tuple[Tensors, tuple[str, ...]]:
    """Tensors without markers and scales, with 8-bit floats multiplied out; notes on what was done.

    Raises:
      ValueError: scaled weights of which one has no scale, or a scale of a shape that does not fit.
    """
    _check_formats(tensors, where)
    scaled = {
        name: scale
        for name in tensors
        for scale in _scale_names(name)
        if name in table and scale in tensors
    }
    dropped = [name for name in tensors if name not in table and _is_marker(name, tensors)]
    used = {*scaled.values(), *dropped}
    plain = {name: tensor for name, tensor in tensors.items() if name not in used}
    is_scaled_file = any(name.rpartition(".")[2] == "scaled_fp8" for name in dropped)
    eighths = [name for name, t in plain.items() if name in table and t.dtype in FLOAT8]
    unscaled = [name for name in eighths if name not in scaled]
    if unscaled and (is_scaled_file or scaled):
        raise ValueError(
            f"{where} holds scaled 8-bit weights, and {few(unscaled)} without a scale; "
            "fetch the file again."
        )
    for name in eighths:
        scale = tensors[scaled[name]] if name in scaled else None
        plain[name] = _multiplied(name, plain[name], scale, where)
    return plain, tuple(_notes(dropped, eighths, scaled))


def _notes(dropped: list[str], eighths: list[str], scaled: dict[str, str]) -> Iterator[str]:
    if dropped:
        yield f"not values of the network, left out: {few(dropped)}"
    if scaled and eighths:
        yield f"{len(eighths)} weights of 8 bits are multiplied by their scales, into float32"
    elif eighths:
        yield f"{len(eighths)} weights of 8 bits become bfloat16, which holds them exactly"


def _scale_names(name: str) -> Iterator[str]:
    module, _, last = name.rpartition(".")
    if last == "weight":
        yield from (f"{module}.{scale}" for scale in _SCALES)


def _is_marker(name: str, tensors: Tensors) -> bool:
    last = name.rpartition(".")[2]
    return last in _MARKERS or last in _INPUT_SCALES or 0 in tensors[name].shape


def _check_formats(tensors: Tensors, where: object) -> None:
    """Raises: ValueError: ComfyUI's description of a layer names a format that is not read."""
    for name, tensor in tensors.items():
        if not name.endswith(".comfy_quant") or tensor.dtype != np.uint8:
            continue
        try:
            kind = json.loads(np.asarray(tensor).tobytes())["format"]
        except (ValueError, KeyError, TypeError, RecursionError):
            kind = "that cannot be read"
        if kind not in ("float8_e4m3fn", "float8_e5m2"):
            raise ValueError(
                f"{where} says in {name} that its weights are of format {kind}, which is not read "
                "here; fetch the bfloat16 or float16 file of the same model."
            )


def _multiplied(name: str, weight: Tensor, scale: Tensor | None, where: object) -> LazyArray:
    if scale is None:
        # Every value of both 8-bit formats is one of bfloat16.
        wide = np.dtype(ml_dtypes.bfloat16)
        return LazyArray(weight.shape, wide, lambda: np.asarray(weight).astype(wide))
    shape = tuple(scale.shape)
    rows = (weight.shape[0], *(1,) * (len(weight.shape) - 1))
    blocks = tuple(-(-size // _BLOCK) for size in weight.shape)
    if int(np.prod(shape)) != 1 and shape not in (rows[:1], rows, blocks):
        raise ValueError(
            f"{where} has a scale of shape {list(shape)} for {name}, which has "
            f"{list(weight.shape)}; one scale, one a row or one a block of {_BLOCK} is read."
        )

    def read() -> np.ndarray:
        factors = np.asarray(scale).astype(np.float32)
        if factors.size == 1:
            factors = factors.reshape(())
        elif shape in (rows[:1], rows):
            factors = factors.reshape(rows)
        else:
            for axis, size in enumerate(weight.shape):
                factors = np.repeat(factors, _BLOCK, axis).take(range(size), axis)
        return np.asarray(weight).astype(np.float32) * factors

    return LazyArray(weight.shape, np.dtype(np.float32), read)
