"""Name tables: the path in our parameter trees and the layout of each tensor of an official file.

A network's table maps every official name to one `TensorMapping`. Converting is a walk over the
table in one direction or the other, so there and back is the identity by construction.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping

import numpy as np

ParamPath = tuple[str, ...]
"""Keys from the root of a parameter tree to one of its arrays."""


class Layout(enum.Enum):
    """How an official (torch) array becomes ours. Each has an exact inverse."""

    # Ours are Flax's: channels last, contracted axis before the output axis, so that `x @ kernel`
    # and `conv_general_dilated` with NHWC/HWIO need no transposition on the device.

    SAME = "as it is"
    LINEAR = "[out, in] -> [in, out]"
    CONV2D = "[out, in, height, width] -> [height, width, in, out]"
    CONV3D = "[out, in, time, height, width] -> [time, height, width, in, out]"
    TIME_CONV = "[out, in, time, 1, 1] -> [time, in, out]"
    POINTWISE = "[out, in, 1, ..., 1] -> [in, out]"
    PATCH = "[dim, chan, 1, q, r] -> [(q r chan), dim]"
    VECTOR = "any axes of size one around a vector -> [dim]"
    DROP_FIRST = "[1, ...] -> [...]"


@dataclasses.dataclass(frozen=True)
class TensorMapping:
    """The array of a parameter tree that an official tensor becomes, or a layer of it.

    Attributes:
      path: keys from the root of the tree.
      layout: how the official array is laid out there.
      layer: index on the leading axis, for parameters stacked over layers.
      shape: shape of the official array.
    """

    path: tuple[str, ...]
    layout: Layout
    shape: tuple[int, ...]
    layer: int | None = None


NameTable = Mapping[str, TensorMapping]


def to_ours(array: np.ndarray, layout: Layout) -> np.ndarray:
    """Lay an official array out as ours, as a view where one is possible."""
    return _TO_OURS[layout](array)


def to_official(array: np.ndarray, layout: Layout, shape: tuple[int, ...]) -> np.ndarray:
    """Undo `to_ours`; `shape` is the official shape."""
    return _TO_OFFICIAL[layout](array, shape)


def _patch_to_official(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    # A patch is one frame deep in every official model: its time axis has size one.
    dim, chan, _, q, r = shape
    return array.reshape(q, r, chan, dim).transpose(3, 2, 0, 1)[:, :, None]


_TO_OURS: Mapping[Layout, Callable[[np.ndarray], np.ndarray]] = {
    Layout.SAME: lambda array: array,
    Layout.LINEAR: lambda array: array.T,
    Layout.CONV2D: lambda array: array.transpose(2, 3, 1, 0),
    Layout.CONV3D: lambda array: array.transpose(2, 3, 4, 1, 0),
    Layout.TIME_CONV: lambda array: array[:, :, :, 0, 0].transpose(2, 1, 0),
    # A 1x1 convolution is a matrix product, whatever the number of its axes.
    Layout.POINTWISE: lambda array: array.reshape(array.shape[:2]).T,
    # Row, column, channel is the order in which our patches are flattened (dit_modules.py).
    Layout.PATCH: lambda array: array[:, :, 0].transpose(2, 3, 1, 0).reshape(-1, array.shape[0]),
    Layout.VECTOR: lambda array: array.reshape(-1),
    Layout.DROP_FIRST: lambda array: array[0],
}

_TO_OFFICIAL: Mapping[Layout, Callable[[np.ndarray, tuple[int, ...]], np.ndarray]] = {
    Layout.SAME: lambda array, _: array,
    Layout.LINEAR: lambda array, _: array.T,
    Layout.CONV2D: lambda array, _: array.transpose(3, 2, 0, 1),
    Layout.CONV3D: lambda array, _: array.transpose(4, 3, 0, 1, 2),
    Layout.TIME_CONV: lambda array, _: array.transpose(2, 1, 0)[..., None, None],
    Layout.POINTWISE: lambda array, shape: array.T.reshape(shape),
    Layout.PATCH: _patch_to_official,
    Layout.VECTOR: lambda array, shape: array.reshape(shape),
    Layout.DROP_FIRST: lambda array, shape: array.reshape(shape),
}
