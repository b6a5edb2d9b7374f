"""Batches of samples, in an order that a seed decides and that a resumed run continues exactly.

Every process reads its own share of the films.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import grain

from shotstream_jax.data.transforms import Sample, Transform

_EPOCHS = 1 << 32
"""In effect infinite. Grain's own infinity, `repeat(None)`, overflows in batches of 1."""


@runtime_checkable
class Films(Protocol):
    """Films by number, of any type that a transform takes."""

    def __len__(self) -> int:
        """Number of films."""
        ...

    def __getitem__(self, index: int) -> Any:
        """One film."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How films become batches.

    Attributes:
      batch: samples of a batch of this process.
      seed: of the order, and of the transform's random numbers.
      shuffle: whether every epoch has an order of its own; else films come by number.
      process_index: number of this process, and of its share of the films.
      process_count: number of processes.
      threads: threads that make samples; 0 makes them when they are requested.
      ahead: samples prefetched.
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
    films: Films, transform: Transform, config: LoaderConfig
) -> grain.IterDataset[Sample]:
    """Infinite batches; `get_state` and `set_state` of their iterator resume to the bit.

    Raises:
      ValueError: fewer films than there are processes.
    """
    if len(films) < config.process_count:
        raise ValueError(
            f"There are {len(films)} films for {config.process_count} processes; give every "
            "process one or more."
        )
    reading = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=config.ahead)
    ordered = grain.MapDataset.source(films).seed(config.seed)
    # All films are shuffled, then split: every process permutes alike, so that shares of one epoch
    # do not overlap, and a film is on another process in the next.
    ordered = ordered.shuffle() if config.shuffle else ordered
    share = ordered[config.process_index :: config.process_count]
    # Repeated before batching: a share that does not divide into batches loses no film.
    samples = share.repeat(_EPOCHS).random_map(transform)
    return samples.batch(config.batch).to_iter_dataset(reading)
