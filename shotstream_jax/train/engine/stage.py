"""What a training stage is to the loop, and what every experiment file has in common.

There is one loop. A stage gives it objectives, initial networks, batches and a validation;
`Training` is the settings of a run, which each kind of stage extends with its own.
"""

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh

from shotstream_jax.train.engine.optimizer import Objective
from shotstream_jax.train.losses import Batch, ParamsByNetwork
from shotstream_jax.typing import Array, Key, PyTree

Scores = Mapping[str, float]


@runtime_checkable
class Batches(Protocol):
    """Infinite batch iterator whose position can be checkpointed."""

    def __next__(self) -> Batch:
        """The next batch of this process, as NumPy arrays."""
        ...

    def get_state(self) -> Any:
        """The position, in numbers, strings, lists and dicts."""
        ...

    def set_state(self, state: Any) -> None:
        """Set the position."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Parameters that are loaded or initialised when they are needed.

    Attributes:
      shapes: their shapes and dtypes.
      load: allocates them, each leaf with the given sharding.
    """

    shapes: PyTree[Any]
    # A function and not arrays: programs are planned for models that this host could not hold.
    load: Callable[[PyTree[Any]], Any]


def random_weights(init: Callable[[Key[Array, ""]], Any], seed: int) -> Weights:
    """Parameters that `init` draws from a seed."""
    key = jax.random.key(seed)
    # Jitted with shardings: each device draws its own part, and no host holds a whole network.
    return Weights(
        shapes=jax.eval_shape(init, key),
        load=lambda shardings: jax.jit(init, out_shardings=shardings)(key),
    )


Validate = Callable[[ParamsByNetwork, pathlib.Path, int], Scores]
"""`(networks, folder, step) -> scores`; may leave pictures in the folder, named by the step."""


def _no_scores(networks: ParamsByNetwork, folder: pathlib.Path, step: int) -> Scores:
    return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """What plugs into the loop. Dicts are by network.

    Attributes:
      objectives: loss and optimizer of each network that is trained.
      weights: their initial parameters.
      batches: opens the data at its beginning.
      frozen: networks that the losses use and that are never trained.
      network_for_step: the network that a step trains; steps count from 0.
      carry: shapes of what one step passes to the next; zeros at first.
      batch_shapes: shapes of a batch, where all have the same: to lower programs without data.
      validation: opens what validation needs, such as checkpoints, and returns the function that
        scores the networks after a step.
      finish: makes what the next stage starts from, in a folder that is not there yet.

    The validation and `finish` are given every network, running means where there are any. `finish`
    raises a ValueError if the networks are not good enough for a next stage.
    """

    objectives: Mapping[str, Objective]
    weights: Mapping[str, Weights]
    batches: Callable[[], Batches]
    network_for_step: Callable[[int], str]
    frozen: Mapping[str, Weights] = dataclasses.field(default_factory=dict)
    carry: PyTree[Any] = ()
    batch_shapes: Mapping[str, jax.ShapeDtypeStruct] | None = None
    validation: Callable[[], Validate] = lambda: _no_scores
    finish: Callable[[ParamsByNetwork, pathlib.Path], Scores]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each mesh axis; `data` of 0 takes all that the other axes leave.

    Attributes:
      data: axis that splits the batch.
      fsdp: axis that splits the batch, and shards all parameters.
      tensor: axis that splits heads and hidden channels.
    """

    data: int = 0
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(abc.ABC):
    """Settings of a run, whatever the stage.

    Attributes:
      output: folder of the run.
      steps: steps in all.
      seed: of parameters, order of the data and PRNG keys.
      log_every: steps that one record of metrics averages.
      validate_every: steps between two validations.
      save_every: steps between two checkpoints.
      keep: checkpoints that are kept.
      patience: steps in a row without a finite gradient after which the run stops.
      mesh: how the devices share the work.
    """

    output: pathlib.Path
    steps: int
    seed: int = 0
    log_every: int = 20
    validate_every: int = 500
    save_every: int = 200
    keep: int = 2
    patience: int = 10
    mesh: MeshConfig = MeshConfig()

    # What a step computes must stay; how long, how often and on how many devices may differ.
    MAY_CHANGE: ClassVar = frozenset(
        {
            *("output", "steps", "log_every", "validate_every", "save_every", "keep", "patience"),
            "mesh",
        }
    )
    """Settings that may differ when a run is resumed."""

    def __post_init__(self) -> None:
        """Raises: ValueError: a count that must be at least 1."""
        for name in ("steps", "log_every", "validate_every", "save_every", "keep", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)} and must be 1 or more.")

    @abc.abstractmethod
    def stage(self, mesh: Mesh) -> Stage:
        """Bind everything that the loop calls, for programs on some devices.

        Raises:
          ValueError: settings, data or checkpoints that do not fit together.
          OSError: files that are not there.
        """
