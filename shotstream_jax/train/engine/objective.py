"""What a stage plugs into the loop: a loss, and how the network that it is for moves.

A loss draws its own chance, from one key a sample, so that it means the same whatever the batch is
cut into.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from shotstream_jax.pytree import pytree
from shotstream_jax.train.engine.optimizer import OptimizerConfig, make_optimizer
from shotstream_jax.typing import Array, Float, Int, Key, PyTree

Batch = Mapping[str, Any]
"""Arrays that begin with the batch axis."""

Networks = Mapping[str, Any]
"""Parameters by network."""


@pytree
class Chance:
    """Where a step's randomness starts.

    Attributes:
      step: for what all samples share.
      samples: one for each sample.
    """

    step: Key[Array, ""]
    samples: Key[Array, " batch"]


def chance_of(seed: Int[Array, ""], step: Int[Array, ""], batch: int) -> Chance:
    """The randomness of one step over a batch: no other step, nor order of steps, changes it."""
    shared, each = jax.random.split(jax.random.fold_in(jax.random.key(seed), step))
    samples = jax.vmap(lambda index: jax.random.fold_in(each, index))(jnp.arange(batch))
    return Chance(step=shared, samples=samples)


@pytree
class Report:
    """What a loss leaves behind.

    Attributes:
      metrics: parts of the loss and whatever else is worth a curve; means over samples.
      carry: what the next step is handed, shaped as what this one was handed.
    """

    metrics: dict[str, Float[Array, ""]]
    carry: PyTree[Any] = ()


@pytree
class Inputs:
    """What a loss is given beside the parameters that learn.

    Attributes:
      networks: all there are, frozen ones included.
      batch: samples.
      chance: their randomness.
      carry: what the step before handed on.
    """

    networks: Networks
    batch: Batch
    chance: Chance
    carry: PyTree[Any] = ()


Scored = tuple[Float[Array, ""], Report]
"""A loss, which is a mean over samples, and what it leaves behind."""

Loss = Callable[[Any, Inputs], Scored]
"""Of the parameters of the network that learns, and of all else."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """How one network learns.

    Attributes:
      loss: what to make small.
      optimizer: how to move.
      accumulate: pieces that a batch is cut into.
      trainable: of a tree of parameters, which leaves learn; `None` is all.
    """

    loss: Loss
    optimizer: OptimizerConfig
    accumulate: int = 1
    trainable: Callable[[Any], PyTree[bool]] | None = None

    def transformation(self) -> optax.GradientTransformation:
        """The optimizer, without state for leaves that are not trained."""
        whole = make_optimizer(self.optimizer)
        return whole if self.trainable is None else optax.masked(whole, self.trainable)
