"""Samples that a program made, on disk: plain arrays in shards, each there whole or not at all.

    dataset.json                 what was asked for
    shard_00000/latents.npy      [sample ...], one file a field
    shard_00000/captions.npy

A maker that was stopped goes on with the shards that are missing; several makers may share a
folder, each with shards of its own. Readers map files into memory and copy what they are asked for.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from shotstream_jax.files import atomic_file, atomic_folder

FACTS = "dataset.json"

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Shards:
    """A dataset that is being made.

    Attributes:
      folder: where it is.
      samples: how many there will be.
      size: samples of a shard; the last one may have fewer.
    """

    folder: pathlib.Path
    samples: int
    size: int

    def __post_init__(self) -> None:
        """Raises: ValueError: no samples, or shards of none."""
        if min(self.samples, self.size) < 1:
            raise ValueError(
                f"{self.samples} samples in shards of {self.size}; both must be 1 or more."
            )

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Note what the samples are, for readers."""
        text = json.dumps({"samples": self.samples, "size": self.size, **facts}, indent=1)
        with atomic_file(self.folder / FACTS) as partial:
            partial.write_text(text + "\n", encoding="utf-8")

    def __len__(self) -> int:
        """Shards there will be."""
        return -(-self.samples // self.size)

    def rows(self, shard: int) -> range:
        """The samples of one shard."""
        return range(shard * self.size, min((shard + 1) * self.size, self.samples))

    def missing(self, process: int = 0, processes: int = 1) -> Iterator[int]:
        """Shards that one of several makers has still to make."""
        for shard in range(process, len(self), processes):
            if not _place(self.folder, shard).is_dir():
                yield shard

    def write(self, shard: int, arrays: Arrays) -> None:
        """Put a shard in its place.

        Raises:
          ValueError: arrays of other lengths than the shard has samples.
        """
        count = len(self.rows(shard))
        for name, array in arrays.items():
            if len(array) != count:
                raise ValueError(
                    f"Shard {shard} has {count} samples and {name} {len(array)}; make one a sample."
                )
        with atomic_folder(_place(self.folder, shard)) as partial:
            for name, array in arrays.items():
                np.save(partial / f"{name}.npy", array, allow_pickle=False)


class ShardReader:
    """A dataset that is complete, sample by sample, in any order."""

    def __init__(self, folder: pathlib.Path, kind: str) -> None:
        """Open the dataset of a folder.

        Args:
          folder: where it is.
          kind: of samples, as whoever made them noted.

        Raises:
          ValueError: a folder that holds no dataset, one of another kind, or one with shards
            missing.
        """
        self._folder = folder
        try:
            self.facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            self._shards = Shards(folder, self.facts["samples"], self.facts["size"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{folder} holds no dataset that can be read ({_reason(error)}); make it with the "
                "`shotstream train` config whose output it is."
            ) from error
        found = self.facts.get("kind")
        if found != kind:
            raise ValueError(
                f"{folder} holds {found!r} and {kind!r} are needed; give the output of the "
                "`shotstream train` config that makes them."
            )
        missing = list(self._shards.missing())
        if missing:
            raise ValueError(
                f"{folder} has {len(self._shards) - len(missing)} of {len(self._shards)} shards; "
                "go on with the `shotstream train` config whose output it is (--resume)."
            )

    def __len__(self) -> int:
        """Samples there are."""
        return self._shards.samples

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """One sample, by field.

        Raises:
          IndexError: there is no such sample.
          ValueError: a file of its shard that cannot be read, with its path.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"Sample {index} of {len(self)}: samples count from 0.")
        shard, row = divmod(int(index), self._shards.size)
        return {name: np.array(array[row]) for name, array in self._arrays(shard).items()}

    @functools.cache  # noqa: B019 - a reader lives as long as the run that reads.
    def _arrays(self, shard: int) -> dict[str, np.ndarray]:
        place = _place(self._folder, shard)
        return {path.stem: _map_file(path) for path in sorted(place.glob("*.npy"))}


def _map_file(path: pathlib.Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({_reason(error)}); remove its folder and make it again (--resume)."
        ) from error


def _place(folder: pathlib.Path, shard: int) -> pathlib.Path:
    return folder / f"shard_{shard:05d}"


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no {error.args[0]} in {FACTS}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
