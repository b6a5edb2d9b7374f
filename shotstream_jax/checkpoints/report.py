"""What a conversion found: keys used, missing and unexpected, and how shapes and dtypes change."""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from shotstream_jax.checkpoints.naming import Layout, NameTable
from shotstream_jax.checkpoints.tensors import Tensors

_NAMED = 3
"""Keys of each kind that a one-line message names."""


@dataclasses.dataclass(frozen=True)
class MisShaped:
    """A tensor of another shape than its place has."""

    name: str
    found: tuple[int, ...]
    expected: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.found)} for {list(self.expected)}"


@dataclasses.dataclass(frozen=True)
class Report:
    """How the tensors of a file match the places of a network.

    Attributes:
      used: tensors that have a place of their shape.
      leaves: arrays that they become; layers share one.
      missing: places that no tensor fills.
      unexpected: tensors that have no place.
      misshaped: tensors whose place has another shape.
      layouts: tensors that are laid out anew, by how.
      dtypes: tensors by dtype in the file, and after if that is another one.
      digest: SHA-256 of all names, shapes and dtypes of the file.
    """

    used: int
    leaves: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[MisShaped, ...]
    layouts: Mapping[str, int]
    dtypes: Mapping[str, int]
    digest: str

    @property
    def whole(self) -> bool:
        """Whether every place is filled and nothing is left over."""
        return not (self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        problems = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", self.misshaped),
        )
        found = [f"{len(names)} {kind} ({_few(names)})" for kind, names in problems if names]
        return f"{self.used} keys match; " + ("; ".join(found) or "none is left over")


class PartialWeightsError(ValueError):
    """Weights that do not fill a network exactly; `report` says where."""

    def __init__(self, report: Report, where: str = "These weights"):
        self.report = report
        super().__init__(
            f"{where} do not fill the network: {report}. Nothing was written; choose the file or "
            "section that belongs to it."
        )


def compare(table: NameTable, tensors: Tensors, dtype: np.dtype | None = None) -> Report:
    """Match tensors with a table, by names and shapes alone; `dtype` is what they become."""
    misshaped = tuple(
        MisShaped(name, tensors[name].shape, slot.shape)
        for name, slot in table.items()
        if name in tensors and tensors[name].shape != slot.shape
    )
    used = (table.keys() & tensors.keys()) - {bad.name for bad in misshaped}
    return Report(
        used=len(used),
        leaves=len({slot.path for slot in table.values()}),
        missing=tuple(name for name in table if name not in tensors),
        unexpected=tuple(name for name in tensors if name not in table),
        misshaped=misshaped,
        layouts=_count(
            table[name].layout.value for name in used if table[name].layout is not Layout.SAME
        ),
        dtypes=_count(_change(tensors[name].dtype, dtype) for name in used),
        digest=_digest(tensors),
    )


def _count(kinds: Iterable[str]) -> dict[str, int]:
    return dict(sorted(collections.Counter(kinds).items()))


def _change(found: np.dtype, wanted: np.dtype | None) -> str:
    return str(found) if wanted in (None, found) else f"{found} -> {wanted}"


def _digest(tensors: Tensors) -> str:
    lines = sorted(f"{name} {list(t.shape)} {t.dtype}" for name, t in tensors.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _few(names: tuple[object, ...]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(map(str, names[:_NAMED])) + (f" and {rest} more" if rest > 0 else "")
