"""Match report of a conversion: keys used, missing, unexpected; changes of layout and dtype."""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from shotstream_jax.checkpoints.naming import Layout, NameTable
from shotstream_jax.checkpoints.tensors import Tensors, few, is_float


@dataclasses.dataclass(frozen=True)
class MisShaped:
    """A tensor of another shape than the network's array."""

    name: str
    found: tuple[int, ...]
    expected: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.found)} for {list(self.expected)}"


@dataclasses.dataclass(frozen=True)
class MatchReport:
    """How the tensors of a file match the name table of a network.

    Attributes:
      used: tensors of the table, of the shape in the table.
      leaves: arrays that they become; layers share one.
      missing: names of the table that are not in the file.
      unexpected: names in the file that are not in the table.
      misshaped: tensors of the table, of another shape.
      not_floats: tensors of the table that are integers or flags, with their dtype.
      layouts: tensors whose layout changes, by layout.
      dtypes: tensors by dtype in the file, and after if that is another one.
      digest: SHA-256 of all names, shapes and dtypes of the file.
    """

    used: int
    leaves: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[MisShaped, ...]
    not_floats: tuple[str, ...]
    layouts: Mapping[str, int]
    dtypes: Mapping[str, int]
    digest: str

    @property
    def whole(self) -> bool:
        """Whether file and table have the same names and shapes, and the file floats."""
        return not (self.missing or self.unexpected or self.misshaped or self.not_floats)

    def __str__(self) -> str:
        problems = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", self.misshaped),
            ("no floating-point numbers", self.not_floats),
        )
        found = [f"{len(names)} {kind} ({few(names)})" for kind, names in problems if names]
        return f"{self.used} keys match; " + ("; ".join(found) or "none is left over")


class PartialWeightsError(ValueError):
    """Weights that do not fill a network exactly; `report` says where."""

    def __init__(self, report: MatchReport, where: str = "These weights"):
        self.report = report
        super().__init__(
            f"{where} do not fill the network: {report}. Nothing was written; choose the file or "
            "section that belongs to it."
        )


def compare(table: NameTable, tensors: Tensors, dtype: np.dtype | None = None) -> MatchReport:
    """Match tensors with a table, by names and shapes alone; `dtype` is what they become."""
    misshaped = tuple(
        MisShaped(name, tensors[name].shape, mapping.shape)
        for name, mapping in table.items()
        if name in tensors and tensors[name].shape != mapping.shape
    )
    # A misshaped tensor is neither used nor missing: it is reported once.
    used = (table.keys() & tensors.keys()) - {bad.name for bad in misshaped}
    return MatchReport(
        used=len(used),
        leaves=len({mapping.path for mapping in table.values()}),
        missing=tuple(name for name in table if name not in tensors),
        unexpected=tuple(name for name in tensors if name not in table),
        misshaped=misshaped,
        # Quantised without a scale here, or another network's: as floats they would film noise.
        not_floats=tuple(
            f"{name} {tensors[name].dtype}"
            for name in table
            if name in used and not is_float(tensors[name])
        ),
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
    # Sorted: the same tensors saved in another order are the same file to a reader. Values are left
    # out, so that a digest of 11 GB takes no reading; it identifies a release's layout, not
    # weights.
    lines = sorted(f"{name} {list(t.shape)} {t.dtype}" for name, t in tensors.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
