"""Batches of samples, in an order that a seed decides and that a resumed run continues exactly.

Every process reads its own share of the films. All films of a batch come from one source, so that
stories of different lengths never meet in an array; sources take turns, on all processes alike.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import grain

from shotstream_jax.data.transforms import Sample, Transform

_EPOCHS = 1 << 32
"""Without end, for all that it matters; Grain's own infinity overflows in batches of 1."""


@runtime_checkable
class Films(Protocol):
    """Films by number, of any kind that a transform understands."""

    def __len__(self) -> int:
        """How many films there are."""
        ...

    def __getitem__(self, index: int) -> Any:
        """One film."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How films become batches.

    Attributes:
      batch: samples of a batch of this process.
      seed: where the order and the draws of the transform start.
      shuffle: whether every epoch has an order of its own; else films come by number.
      process_index: which share of the films this process reads.
      process_count: how many shares there are.
      threads: threads that make samples; 0 makes them when they are asked for.
      ahead: samples made ahead of need.
    """

    batch: int
    seed: int = 0
    shuffle: bool = True
    process_index: int = 0
    process_count: int = 1
    threads: int = 1
    ahead: int = 32

    def __post_init__(self) -> None:
        """Raises: ValueError: sizes that leave a process without a batch."""
        if self.batch < 1:
            raise ValueError(f"A batch of {self.batch} samples holds none; ask for 1 or more.")
        if not 0 <= self.process_index < self.process_count:
            raise ValueError(
                f"Process {self.process_index} of {self.process_count}: processes count from 0."
            )


def make_loader(
    sources: Sequence[Films], transform: Transform, config: LoaderConfig
) -> grain.IterDataset[Sample]:
    """Batches without end; `get_state` and `set_state` of their iterator resume to the bit.

    Raises:
      ValueError: no source, or a source with fewer films than there are processes.
    """
    if not sources:
        raise ValueError("0 sources of films; give 1 or more.")
    turns = [_batches(source, transform, config, turn) for turn, source in enumerate(sources)]
    reading = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=config.ahead)
    return grain.MapDataset.mix(turns).to_iter_dataset(reading)


def _batches(
    source: Films, transform: Transform, config: LoaderConfig, turn: int
) -> grain.MapDataset[Sample]:
    if len(source) < config.process_count:
        raise ValueError(
            f"Source {turn} has {len(source)} films for {config.process_count} processes; "
            "give every process one or more."
        )
    films = grain.MapDataset.source(source).seed(config.seed + turn)
    films = films.shuffle() if config.shuffle else films
    share = films[config.process_index :: config.process_count]
    return share.repeat(_EPOCHS).random_map(transform).batch(config.batch)
