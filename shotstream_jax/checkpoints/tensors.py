"""Lazy tensors of a file: names, shapes and dtypes are known, values are read when needed.

Everything that converts weights passes these on, so that one tensor is in memory at a time.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

WRAPPERS = frozenset({"_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod"})
"""Segments that torch's wrappers leave in a name: sharding, rematerialisation, compilation."""

_NAMED = 3
"""Names that a one-line message holds."""


@runtime_checkable
class Tensor(Protocol):
    """An array-like: it has a shape and a dtype, and `np.asarray` gives its values."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    @property
    def dtype(self) -> Any:
        """Its dtype."""
        ...

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class LazyArray:
    """A tensor that is read again each time its values are needed.

    Attributes:
      shape: its shape.
      dtype: its dtype.
      read: returns its values, as a read-only view of the file where that is possible.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        # copy=None copies only if a dtype or layout asks for it: `np.asarray` stays a view.
        return np.array(self.read(), *args, **{"copy": None, **kwargs})


Tensors = Mapping[str, Tensor]


def section_of(tensors: Tensors, section: str, where: object) -> Tensors:
    """Tensors whose names start with `section.`, without it; `where` names the file in errors.

    Raises:
      ValueError: there are none.
    """
    chosen = {
        name.removeprefix(f"{section}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{section}.")
    }
    if not chosen:
        raise ValueError(
            f"{where} has no section {section!r}; it has {', '.join(sections(tensors)) or 'none'}."
        )
    return chosen


def sections(tensors: Tensors) -> list[str]:
    """The first segments of dotted names, each once, in order."""
    return list(dict.fromkeys(name.partition(".")[0] for name in tensors))


def drop_wrappers(tensors: Tensors) -> Tensors:
    """Name tensors without the segments of torch's wrappers.

    Raises:
      ValueError: two tensors end up with one name.
    """
    bare: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if short in bare:
            raise ValueError(
                f"Two tensors are named {short} once wrappers are dropped (one is {name}); "
                "save one of them alone."
            )
        bare[short] = tensor
    return bare


def unwrap(tensors: Tensors) -> Tensors:
    """Name tensors as the bare network does: without torch's wrappers and a leading `model.`.

    Raises:
      ValueError: two tensors end up with one name.
    """
    bare: dict[str, Tensor] = {}
    for name, tensor in drop_wrappers(tensors).items():
        # Self-forcing's trainers keep the network as attribute `model` of a wrapper.
        short = name.removeprefix("model.")
        # A file may hold both a network and its average; together they are no one network.
        if short in bare:
            raise ValueError(
                f"Two tensors are named {short} once wrappers are dropped (one is {name}); "
                "choose one section of the file."
            )
        bare[short] = tensor
    return bare


def is_float(tensor: Tensor) -> bool:
    """Whether a tensor holds floating-point numbers."""
    # Not by `kind`: NumPy calls the 8- and 16-bit floats of machine learning void types.
    return np.issubdtype(tensor.dtype, np.floating) or "float" in str(tensor.dtype)


def check_finite(values: np.ndarray, name: str, stored: np.ndarray | None = None) -> None:
    """Refuse values that are not finite; `stored` are those before a cast, to tell what happened.

    Raises:
      ValueError: a value that is not finite, with the tensor's name.
    """
    bad = ~np.isfinite(values)
    count = int(np.count_nonzero(bad))
    if not count:
        return
    first = values[bad].reshape(-1)[0]
    if stored is not None and np.isfinite(stored[bad]).all():
        raise ValueError(
            f"{name} has {count} values beyond the range of {values.dtype}, the first of them "
            f"{stored[bad].reshape(-1)[0]}; store it as float32 (--dtype float32)."
        )
    raise ValueError(
        f"{name} has {count} values that are not finite, the first of them {first}; fetch the file "
        "again, or take an earlier state of the training."
    )


def few(names: Sequence[object]) -> str:
    """The first few names, and how many there are besides."""
    rest = len(names) - _NAMED
    return ", ".join(map(str, names[:_NAMED])) + (f" and {rest} more" if rest > 0 else "")
