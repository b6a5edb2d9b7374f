"""One training step as one program: loss, gradient, clip, optimizer and running mean.

A step moves the network of its objective and no other. Should loss or gradient not be finite, it
moves nothing: only the step counter and the count of skipped steps go on, and the host decides when
it has seen enough of them.

Accumulation cuts the batch into pieces and adds their gradients up. Chance is keyed by sample, so
that four pieces of one sample see what one piece of four would.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from shotstream_jax.sharding import replicated
from shotstream_jax.train.engine.objective import (
    Batch,
    Chance,
    Inputs,
    Networks,
    Objective,
    Report,
    Scored,
    chance_of,
)
from shotstream_jax.train.engine.optimizer import follow, learning_rate
from shotstream_jax.train.engine.state import TrainState, batch_sharding
from shotstream_jax.typing import Array, Bool, Float

Metrics = dict[str, Float[Array, ""]]

TrainStep = jax.stages.Wrapped
"""A jitted `(state, frozen, batch) -> (state, metrics)`."""


def jit_step(
    network: str, objective: Objective, horizon: int, shardings: TrainState, frozen: Any, mesh: Mesh
) -> TrainStep:
    """The program of a step that trains `network`; the state it is given is used up.

    Args:
      network: name of the network that learns.
      objective: how it learns.
      horizon: updates that it makes in the whole run, for the schedule.
      shardings: where each leaf of the state lies, before and after.
      frozen: where the networks that never learn lie.
      mesh: the devices.
    """
    step = functools.partial(take_step, network=network, objective=objective, horizon=horizon)
    return jax.jit(
        step,
        in_shardings=(shardings, frozen, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def take_step(
    state: TrainState,
    frozen: Networks,
    batch: Batch,
    *,
    network: str,
    objective: Objective,
    horizon: int,
) -> tuple[TrainState, Metrics]:
    """Move one network once, unless loss or gradient are not finite."""
    gradient, report = _gradient(state, frozen, batch, network, objective)
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(report.metrics["loss"]) & jnp.isfinite(norm)
    rate = learning_rate(objective.optimizer, state.updates[network], horizon)
    moved = _moved(state, gradient, rate, network, objective)
    kept = _choose(finite, dataclasses.replace(moved, carry=report.carry), state)
    new = dataclasses.replace(
        kept,
        step=state.step + 1,
        skipped=state.skipped + ~finite,
        skipped_in_row=jnp.where(finite, 0, state.skipped_in_row + 1),
    )
    metrics = {**report.metrics, "grad_norm": norm, "learning_rate": rate}
    counts = {"skipped": new.skipped, "skipped_in_row": new.skipped_in_row}
    return new, {**{f"{network}/{name}": value for name, value in metrics.items()}, **counts}


def _moved(
    state: TrainState, gradient: Any, rate: Float[Array, ""], network: str, objective: Objective
) -> TrainState:
    """The state after an update of one network, as if the gradient were good."""
    params, config = state.params[network], objective.optimizer
    optimizer = objective.transformation()
    direction, moments = optimizer.update(gradient, state.moments[network], params)
    params = jax.tree.map(lambda param, along: param - rate * along, params, direction)
    means = state.means
    if config.ema is not None:
        mean = follow(means[network], params, state.updates[network], config.ema)
        means = {**means, network: mean}
    return dataclasses.replace(
        state,
        params={**state.params, network: params},
        moments={**state.moments, network: moments},
        means=means,
        updates={**state.updates, network: state.updates[network] + 1},
    )


def _gradient(
    state: TrainState, frozen: Networks, batch: Batch, network: str, objective: Objective
) -> tuple[Any, Report]:
    """The mean gradient over the batch, zero for what does not learn; the loss is a metric."""
    size = jax.tree.leaves(batch)[0].shape[0]
    chance = chance_of(state.seed, state.step, size)
    params, networks = state.params[network], {**frozen, **state.params}

    def loss(params: Any, piece: Any) -> Scored:
        batch, samples, carry = piece
        here = Chance(step=chance.step, samples=samples)
        inputs = Inputs(networks=networks, batch=batch, chance=here, carry=carry)
        value, report = objective.loss(params, inputs)
        return value, dataclasses.replace(report, metrics={"loss": value, **report.metrics})

    learn = jax.grad(loss, has_aux=True)
    whole = (batch, chance.samples, state.carry)
    if objective.accumulate == 1:
        gradient, report = learn(params, whole)
    else:
        gradient, report = _accumulated(learn, params, whole, objective.accumulate)
    if objective.trainable is not None:
        learns = objective.trainable(params)
        gradient = jax.tree.map(lambda g, yes: g if yes else jnp.zeros_like(g), gradient, learns)
    return gradient, report


def _accumulated(
    learn: Callable[[Any, Any], tuple[Any, Report]], params: Any, whole: Any, pieces: int
) -> tuple[Any, Report]:
    """Means of gradient and metrics over pieces of a batch, one after the other."""

    def add(total: Any, piece: Any) -> tuple[Any, Report]:
        gradient, report = learn(params, piece)
        return jax.tree.map(jnp.add, total, gradient), report

    # Neighbours go to different pieces: each device cuts up the samples that it has.
    def cut(leaf: Array) -> Array:
        return leaf.reshape(-1, pieces, *leaf.shape[1:]).swapaxes(0, 1)

    def join(leaf: Array) -> Array:
        return leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:])

    total, reports = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), _map(cut, whole))
    report = Report(
        metrics={name: values.mean() for name, values in reports.metrics.items()},
        carry=_map(join, reports.carry),
    )
    return jax.tree.map(lambda g: g / pieces, total), report


def _map(change: Callable[[Array], Array], tree: Any) -> Any:
    return jax.tree.map(change, tree)


def _choose(condition: Bool[Array, ""], yes: TrainState, no: TrainState) -> TrainState:
    """One of two states, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
