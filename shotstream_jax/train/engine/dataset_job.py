"""Stages that compute a dataset: the encoded films, the teacher's trajectories.

    build_dataset(job)   open folder -> for every missing shard: compute it, write it

Like any run they have settings, a folder and a lock, stop at a signal, and resume shard by shard. A
sample depends on its number and the seed alone, so that it is the same whichever process computes
it, and when.
"""

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
from jax.sharding import Mesh

from shotstream_jax.data.shards import DATASET_FILE, Arrays, Shards
from shotstream_jax.progress import RateMeter
from shotstream_jax.train.engine.loop import (
    Outcome,
    TrainProgress,
    TrainWatch,
    ignore,
    stop_signals,
)
from shotstream_jax.train.engine.run_folder import (
    Existing,
    describe,
    opened,
    refuse_other,
    stored_facts,
)
from shotstream_jax.train.engine.stage import MeshConfig, Weights
from shotstream_jax.typing import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleBuilder:
    """Computes samples from their numbers.

    Attributes:
      facts: description of the samples that readers of the dataset check.
      build: the samples of some numbers, stacked along the first axis of every field.
    """

    facts: Mapping[str, Any]
    build: Callable[[Sequence[int]], Arrays]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleProgram:
    """The program that computes samples, as shapes: it can be compiled without weights or data.

    Attributes:
      function: of the networks, then of every input in order; not yet jitted.
      networks: by name.
      inputs: shapes and shardings of the other arguments, by name.
    """

    function: Callable[..., Any]
    networks: Mapping[str, Weights]
    inputs: Mapping[str, PyTree[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetJob(abc.ABC):
    """Settings of a stage that computes a dataset.

    Attributes:
      output: folder of the dataset.
      samples: number of samples.
      shard: samples computed and written at once: what a stopped job loses at most.
      seed: of the samples.
      mesh: how the devices share the work.
    """

    output: pathlib.Path
    samples: int
    shard: int = 32
    seed: int = 0
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

    MAY_CHANGE: ClassVar = frozenset({"output", "mesh"})
    """Settings that may differ when the job is resumed."""

    def __post_init__(self) -> None:
        """Raises: ValueError: no samples, or shards without samples."""
        shards_of(self)

    @abc.abstractmethod
    def program(self, mesh: Mesh) -> SampleProgram:
        """The program that runs on the devices; nothing is allocated.

        Raises:
          ValueError: sizes that do not fit together.
          FileNotFoundError: no checkpoint to read sizes from that the settings leave open.
        """

    @abc.abstractmethod
    def builder(self) -> SampleBuilder:
        """Load networks and data, and bind the function that computes samples.

        Raises:
          ValueError: settings, data or checkpoints that do not fit together.
          OSError: files that cannot be read.
        """


def build_dataset(
    job: DatasetJob, *, existing: Existing = "refuse", watch: TrainWatch = ignore
) -> Outcome:
    """Compute the missing shards of a dataset, until SIGTERM or Ctrl-C.

    Raises:
      ValueError: settings, data, checkpoints or a folder that do not fit together.
      OSError: files that cannot be read or written.
    """
    found = stored_facts(job.output) if existing == "resume" else None
    if found is not None:
        refuse_other(job, found)
    with opened(job, existing) as folder, stop_signals() as stop:
        shards = shards_of(job)
        # Files are the record of progress: a shard that is there is complete, since it was renamed.
        missing = list(shards.missing(jax.process_index(), jax.process_count()))
        made = len(shards) - len(missing)
        # The facts are written before the first shard, so that a dataset is never without them.
        if missing or not (folder / DATASET_FILE).is_file():
            builder = job.builder()
            shards.describe({**builder.facts, "run": describe(job)})
            meter = RateMeter()
            for shard in missing:
                if stop:
                    return Outcome(ended="stopped", step=made, signal=stop[0])
                # A shard at a time, written whole: a stopped job loses at most the one at work.
                shards.write(shard, builder.build(shards.rows(shard)))
                made += 1
                meter.count()
                at = {"step": made, "steps": len(shards), "rate": meter.rate}
                watch(TrainProgress(**at, metrics={}, recorded=True))
        return Outcome(ended="finished", step=made, scores={"samples": float(job.samples)})


def shards_of(job: DatasetJob) -> Shards:
    """The shards of a job's folder, written or not."""
    return Shards(job.output, job.samples, job.shard)
