"""What a loss takes and returns: types that the engine and the objectives share.

A loss draws from one PRNG key a sample, so that it draws the same however the batch is split into
microbatches or over devices.
"""

from collections.abc import Callable, Mapping
from typing import Any

from shotstream_jax.pytree import pytree
from shotstream_jax.typing import Array, Float, Key, PyTree

Batch = Mapping[str, Any]
"""Arrays that begin with the batch axis."""

ParamsByNetwork = Mapping[str, Any]
"""Parameters by name of the network."""


@pytree
class StepKeys:
    """PRNG keys of one training step.

    Attributes:
      shared: for draws that all samples share.
      per_sample: one for each sample.
    """

    shared: Key[Array, ""]
    per_sample: Key[Array, " batch"]


@pytree
class LossInputs:
    """What a loss reads beside the parameters that it trains.

    Attributes:
      networks: parameters of every network, frozen ones included.
      batch: samples.
      keys: PRNG keys of the step.
      carry: what the step before handed on.
    """

    networks: ParamsByNetwork
    batch: Batch
    keys: StepKeys
    carry: PyTree[Any] = ()


@pytree
class LossAux:
    """What a loss returns beside its value.

    Attributes:
      metrics: parts of the loss and other numbers to plot; means over samples.
      carry: handed to the next step, shaped as the carry of the inputs.
    """

    metrics: dict[str, Float[Array, ""]]
    carry: PyTree[Any] = ()


LossOutput = tuple[Float[Array, ""], LossAux]
"""A scalar loss, which is a mean over samples, and what else it returns."""

Loss = Callable[[Any, LossInputs], LossOutput]
"""`(params, inputs) -> (scalar loss, aux)`, differentiable in `params`."""
