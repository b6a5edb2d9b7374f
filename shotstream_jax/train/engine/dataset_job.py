"""Stages that make a dataset instead of a network: the encoded films, the teacher's trajectories.

    make(making)   open folder -> for every shard that is missing: make it, write it

They are settings, a folder and a lock like any run, stop when asked, and go on shard by shard.
What a sample is made from depends on its number and the seed alone, so that it does not matter who
makes it, or when.
"""

import abc
import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
from jax.sharding import Mesh

from shotstream_jax.data.shards import FACTS as DATASET
from shotstream_jax.data.shards import Arrays, Shards
from shotstream_jax.train.engine.loop import Outcome, Progress, Watch, ignore, stop_signals
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
class Recipe:
    """How samples are made.

    Attributes:
      facts: what readers of the dataset must know.
      make: the samples of the numbers given, one row each.
    """

    facts: Mapping[str, Any]
    make: Callable[[Sequence[int]], Arrays]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleProgram:
    """What makes samples, before there are weights or data.

    Attributes:
      function: of the networks, then of every input in order; yet to be compiled.
      networks: by name.
      inputs: shapes of what else it is given, with their places, by what they are.
    """

    function: Callable[..., Any]
    networks: Mapping[str, Weights]
    inputs: Mapping[str, PyTree[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Making(abc.ABC):
    """Settings of a dataset in the making.

    Attributes:
      output: folder of the dataset.
      samples: how many.
      shard: samples that are made and written at once.
      seed: where randomness starts.
      mesh: how the devices share the work.
    """

    output: pathlib.Path
    samples: int
    shard: int = 32
    seed: int = 0
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

    MAY_CHANGE: ClassVar = frozenset({"output", "mesh"})
    """Settings that the making may be resumed with other values of."""

    def __post_init__(self) -> None:
        """Raises: ValueError: no samples, or shards of none."""
        shards_of(self)

    @abc.abstractmethod
    def program(self, mesh: Mesh) -> SampleProgram:
        """What runs on the devices; nothing is allocated.

        Raises:
          ValueError: sizes that do not fit together.
          FileNotFoundError: no checkpoint to take sizes from that the settings do not tell.
        """

    @abc.abstractmethod
    def recipe(self) -> Recipe:
        """Bind what makes samples.

        Raises:
          ValueError: settings, data or checkpoints that do not fit together.
          OSError: files that are not there.
        """


def make(making: Making, *, existing: Existing = "refuse", watch: Watch = ignore) -> Outcome:
    """Make what is missing of a dataset, or as much until SIGTERM or Ctrl-C.

    Raises:
      ValueError: settings, data, checkpoints or a folder that do not fit together.
      OSError: files that cannot be read or written.
    """
    found = stored_facts(making.output) if existing == "resume" else None
    if found is not None:
        refuse_other(making, found)
    with opened(making, existing) as folder, stop_signals() as stop:
        shards = shards_of(making)
        missing = list(shards.missing(jax.process_index(), jax.process_count()))
        made = len(shards) - len(missing)
        if missing or not (folder / DATASET).is_file():
            recipe = making.recipe()
            shards.describe({**recipe.facts, "run": describe(making)})
            began = time.monotonic()
            for count, shard in enumerate(missing, 1):
                if stop:
                    return Outcome(ended="stopped", step=made, signal=stop[0])
                shards.write(shard, recipe.make(shards.rows(shard)))
                made += 1
                rate = count / (time.monotonic() - began)
                watch(Progress(step=made, steps=len(shards), metrics={}, rate=rate, recorded=True))
        return Outcome(ended="finished", step=made, scores={"samples": float(making.samples)})


def shards_of(making: Making) -> Shards:
    """Where the samples are, or will be."""
    return Shards(making.output, making.samples, making.shard)
