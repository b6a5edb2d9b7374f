"""Computed samples on disk: ArrayRecord files, each complete or absent, and one JSON of facts.

    dataset.json                 number of samples, kind, dtypes and shapes of the fields, settings,
                                 and a checksum of these
    shard_00000.array_record     a record for each sample
    shard_00001.array_record

A record is one sample as NumPy's `.npz`: it names every field with its dtype and shape, and holds a
CRC-32 of each, which is compared when it is read. A stopped job resumes with the missing shards;
several processes may share a folder, each with shards of its own. Samples are read by number, in
any order.
"""

import dataclasses
import hashlib
import io
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from shotstream_jax.files import atomic_file

DATASET_FILE = "dataset.json"
_CHECKSUM = "sha256"

Arrays = Mapping[str, np.ndarray]
"""Arrays by field; with or without a leading sample axis."""

_WRITER = "group_size:1,uncompressed"
"""One record a chunk, since a read fetches and checks whole chunks and samples are read in random
order. Half-precision latents are close to noise: compressing them costs time and gains little."""


@dataclasses.dataclass(frozen=True)
class Shards:
    """A dataset that is being written.

    Attributes:
      folder: of the dataset.
      samples: number of samples of the complete dataset.
      size: samples of a shard; the last one may have fewer.
    """

    folder: pathlib.Path
    samples: int
    size: int

    def __post_init__(self) -> None:
        """Raises: ValueError: no samples, or shards without samples."""
        if min(self.samples, self.size) < 1:
            raise ValueError(
                f"{self.samples} samples in shards of {self.size}; both must be 1 or more."
            )

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Write the facts of the dataset; what is known of its fields stays."""
        known = read_facts(self.folder) if (self.folder / DATASET_FILE).is_file() else {}
        fields = {"fields": known["fields"]} if "fields" in known else {}
        counts = {"samples": self.samples, "size": self.size}
        _write_facts(self.folder, {**counts, **facts, **fields})

    def __len__(self) -> int:
        """Shards of the complete dataset."""
        return -(-self.samples // self.size)

    def rows(self, shard: int) -> range:
        """The numbers of the samples of one shard."""
        return range(shard * self.size, min((shard + 1) * self.size, self.samples))

    def path(self, shard: int) -> pathlib.Path:
        """The file of one shard, written or not."""
        return self.folder / f"shard_{shard:05d}.array_record"

    def missing(self, process: int = 0, processes: int = 1) -> Iterator[int]:
        """Shards that are not written yet, of those that one of several processes writes."""
        for shard in range(process, len(self), processes):
            if not self.path(shard).is_file():
                yield shard

    def write(self, shard: int, arrays: Arrays) -> None:
        """Write a shard.

        Args:
          shard: its number.
          arrays: every field, with its samples along the first axis.

        Raises:
          ValueError: arrays of other lengths than the shard has samples, or fields of other names,
            dtypes or shapes than those of a shard that was written before.
        """
        rows = self.rows(shard)
        for name, array in arrays.items():
            if len(array) != len(rows):
                raise ValueError(
                    f"Shard {shard} has {len(rows)} samples and {name} {len(array)}; make one a "
                    "sample."
                )
        self._check_fields(shard, _sample(arrays, 0))
        with atomic_file(self.path(shard)) as partial:
            writer = ArrayRecordWriter(str(partial), _WRITER)
            for row in range(len(rows)):
                writer.write(_encode(_sample(arrays, row)))
            # The footer, without which the file cannot be read, is written here.
            writer.close()

    def _check_fields(self, shard: int, sample: Arrays) -> None:
        """Note the fields in the facts with the first shard, and compare with them after that."""
        found = _fields(sample)
        facts = read_facts(self.folder) if (self.folder / DATASET_FILE).is_file() else {}
        if "fields" not in facts:
            _write_facts(self.folder, {**facts, "fields": found})
        elif found != facts["fields"]:
            raise ValueError(
                f"Shard {shard} of {self.folder} has {_difference(found, facts['fields'])} in "
                "shards written before; start again with --overwrite."
            )


def read_facts(folder: pathlib.Path) -> dict[str, Any]:
    """What `dataset.json` says, its checksum apart.

    Raises:
      OSError: it is not there.
      ValueError: it is damaged, or was changed since it was written.
    """
    path = folder / DATASET_FILE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:  # nested deeper than Python's stack, which no dataset is
        raise ValueError(f"{path} is nested too deep") from error
    if not isinstance(facts, dict):
        raise ValueError(f"{path} holds no JSON object")
    # Datasets of version 0.1.0 have none. A shard checks itself; a bit that flips in here would
    # give every sample another meaning.
    checksum = facts.pop(_CHECKSUM, None)
    if checksum is not None and checksum != _checksum(facts):
        raise ValueError(f"{path} was changed or damaged: its checksum is another")
    return facts


def _write_facts(folder: pathlib.Path, facts: Mapping[str, Any]) -> None:
    content = {**facts, _CHECKSUM: _checksum(facts)}
    with atomic_file(folder / DATASET_FILE) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _checksum(facts: Mapping[str, Any]) -> str:
    # In one order and without spaces: what a person's editor does to the layout is no damage.
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _are_fields(fields: object) -> bool:
    """Whether a value of `dataset.json` describes fields: a dtype and a shape by name."""
    return isinstance(fields, dict) and all(
        isinstance(field, dict)
        and isinstance(field.get("dtype"), str)
        and isinstance(field.get("shape"), list)
        for field in fields.values()
    )


class ShardReader:
    """A complete dataset, read sample by sample, in any order."""

    def __init__(self, folder: pathlib.Path, kind: str) -> None:
        """Open the dataset of a folder.

        Args:
          folder: of the dataset.
          kind: of samples, as the facts name it.

        Raises:
          ValueError: a folder without a dataset, a dataset of another kind, one with shards
            missing, or a shard that is damaged.
        """
        self._folder = folder
        try:
            self.facts = read_facts(folder)
            self._shards = Shards(folder, self.facts["samples"], self.facts["size"])
            if not _are_fields(self.facts["fields"]):
                raise ValueError(f"fields without a dtype and a shape in {DATASET_FILE}")
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
        self._records = [self._open(shard) for shard in range(len(self._shards))]

    def __len__(self) -> int:
        """Number of samples."""
        return self._shards.samples

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """One sample, by field.

        Raises:
          IndexError: there is no such sample.
          ValueError: its record is damaged, or has other fields than the dataset; with the path.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"Sample {index} of {len(self)}: samples count from 0.")
        shard, row = divmod(int(index), self._shards.size)
        # A bit may flip in the container, in the zip directory or in an array: each layer has a
        # check of its own, and errors of its own that no common base class holds.
        try:
            sample = _decode(self._records[shard][row])
        except Exception as error:
            raise self._damaged(shard, f"sample {index}: {_reason(error)}") from error
        found = _fields(sample)
        if found != self.facts["fields"]:
            raise self._damaged(
                shard,
                f"sample {index} has {_difference(found, self.facts['fields'])} in {DATASET_FILE}",
            )
        return sample

    def _open(self, shard: int) -> grain.sources.ArrayRecordDataSource:
        # A source for each file, not one for all: errors of the library do not name the file.
        try:
            records = grain.sources.ArrayRecordDataSource(str(self._shards.path(shard)))
        except Exception as error:
            raise self._damaged(shard, _reason(error)) from error
        expected = len(self._shards.rows(shard))
        # Grain's wrapper takes its length from the library's class, which its types do not say.
        count = len(records)  # pyright: ignore[reportArgumentType]
        if count != expected:
            raise self._damaged(shard, f"it has {count} records of {expected}")
        return records

    def _damaged(self, shard: int, reason: str) -> ValueError:
        return ValueError(
            f"{self._shards.path(shard)} is damaged ({reason}); remove it and make it again with "
            "the `shotstream train` config whose output it is (--resume)."
        )


def _sample(arrays: Arrays, row: int) -> Arrays:
    # An index into one axis gives scalars, which are not arrays.
    return {name: np.asarray(array[row]) for name, array in arrays.items()}


def _encode(sample: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **sample)
    return buffer.getvalue()


def _decode(record: bytes) -> dict[str, np.ndarray]:
    # Zip compares the CRC-32 of every field that is read.
    with np.load(io.BytesIO(record), allow_pickle=False) as fields:
        return dict(fields)


def _fields(sample: Arrays) -> dict[str, Any]:
    """Dtype and shape by field, as JSON; texts of any length are one dtype."""
    return {
        name: {
            "dtype": "str" if array.dtype.kind == "U" else str(array.dtype),
            "shape": list(array.shape),
        }
        for name, array in sample.items()
    }


def _difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """The first field that differs: `latents float16 [3, 4] where it is float16 [5, 4]`."""

    def shown(fields: Mapping[str, Any]) -> str:
        return f"{fields[name]['dtype']} {fields[name]['shape']}" if name in fields else "absent"

    everything = {**expected, **found}
    name = next(n for n in everything if found.get(n) != expected.get(n))
    return f"{name} {shown(found)} where it is {shown(expected)}"


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no {error.args[0]} in {DATASET_FILE}"
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
