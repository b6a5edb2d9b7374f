"""One training step as one compiled program: loss, gradient, clipping, optimizer and EMA.

A step updates the network of its objective and no other. If loss or gradient is not finite it
updates nothing: only the counters of steps and of skipped steps advance, and the host ends the run
after `patience` of them in a row.

Gradient accumulation splits the batch into microbatches. PRNG keys belong to samples, so that four
microbatches of one sample draw what one of four would.
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
from shotstream_jax.train.engine.optimizer import Objective, ema_update, learning_rate
from shotstream_jax.train.engine.state import TrainState, batch_sharding
from shotstream_jax.train.losses import (
    Batch,
    LossAux,
    LossInputs,
    LossOutput,
    ParamsByNetwork,
    StepKeys,
)
from shotstream_jax.typing import Array, Bool, Float, Int

Metrics = dict[str, Float[Array, ""]]

TrainStep = jax.stages.Wrapped
"""A jitted `(state, frozen, batch) -> (state, metrics)`."""


def jit_step(
    network: str,
    objective: Objective,
    total_updates: int,
    shardings: TrainState,
    frozen: Any,
    mesh: Mesh,
) -> TrainStep:
    """The jitted step that trains `network`; the buffers of its input state are donated.

    Args:
      network: name of the network to train.
      objective: its loss and optimizer.
      total_updates: updates of this network in the whole run, for its schedule.
      shardings: of each leaf of the state, before and after.
      frozen: shardings of the networks that are never trained.
      mesh: the devices.
    """
    step = functools.partial(
        take_step, network=network, objective=objective, total_updates=total_updates
    )
    return jax.jit(
        step,
        in_shardings=(shardings, frozen, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        # The new state takes the memory of the old one. Without donation a step needs both at
        # once: parameters, Adam's moments and EMA twice, 32 bytes a parameter instead of 16.
        donate_argnums=0,
    )


def take_step(
    state: TrainState,
    frozen: ParamsByNetwork,
    batch: Batch,
    *,
    network: str,
    objective: Objective,
    total_updates: int,
) -> tuple[TrainState, Metrics]:
    """Update one network once, unless its loss or gradient is not finite."""
    gradient, aux = _gradient(state, frozen, batch, network, objective)
    # Before clipping: what is plotted and tested is the gradient of the loss.
    norm = optax.tree.norm(gradient)
    # The norm of all leaves is finite only if every one is. A squared sum that overflows float32
    # also counts as not finite: such a gradient is no use either.
    finite = jnp.isfinite(aux.metrics["loss"]) & jnp.isfinite(norm)
    # By the network's own updates: with a generator step every 6 its schedule would otherwise be
    # over after a sixth of its updates.
    rate = learning_rate(objective.optimizer, state.updates[network], total_updates)
    updated = _updated(state, gradient, rate, network, objective)
    # Our own selection, since `optax.apply_if_finite` covers the optimizer's state but not carry,
    # EMA and counters, which must stay with it.
    kept = _select(finite, dataclasses.replace(updated, carry=aux.carry), state)
    new = dataclasses.replace(
        kept,
        step=state.step + 1,
        skipped=state.skipped + ~finite,
        skipped_in_row=jnp.where(finite, 0, state.skipped_in_row + 1),
    )
    metrics = {**aux.metrics, "grad_norm": norm, "learning_rate": rate}
    counts = {"skipped": new.skipped, "skipped_in_row": new.skipped_in_row}
    return new, {**{f"{network}/{name}": value for name, value in metrics.items()}, **counts}


def step_keys(seed: Int[Array, ""], step: Int[Array, ""], batch: int) -> StepKeys:
    """PRNG keys of one step over a batch, from the seed and the step's number alone."""
    # Folded in, not split off a running key: a run that is resumed, or whose other network took the
    # steps before, draws the same.
    shared, each = jax.random.split(jax.random.fold_in(jax.random.key(seed), step))
    samples = jax.vmap(lambda index: jax.random.fold_in(each, index))(jnp.arange(batch))
    return StepKeys(shared=shared, per_sample=samples)


def _updated(
    state: TrainState, gradient: Any, rate: Float[Array, ""], network: str, objective: Objective
) -> TrainState:
    """The state after an update of one network, for a gradient that is finite."""
    params, config = state.params[network], objective.optimizer
    optimizer = objective.transformation()
    direction, opt_state = optimizer.update(gradient, state.opt_state[network], params)
    params = jax.tree.map(lambda param, along: param - rate * along, params, direction)
    ema_params = state.ema_params
    if config.ema is not None:
        mean = ema_update(ema_params[network], params, state.updates[network], config.ema)
        ema_params = {**ema_params, network: mean}
    return dataclasses.replace(
        state,
        params={**state.params, network: params},
        opt_state={**state.opt_state, network: opt_state},
        ema_params=ema_params,
        updates={**state.updates, network: state.updates[network] + 1},
    )


def _gradient(
    state: TrainState, frozen: ParamsByNetwork, batch: Batch, network: str, objective: Objective
) -> tuple[Any, LossAux]:
    """The gradient of the mean loss, zero for frozen leaves; the loss is among the metrics."""
    size = jax.tree.leaves(batch)[0].shape[0]
    keys = step_keys(state.seed, state.step, size)
    params, networks = state.params[network], {**frozen, **state.params}

    def loss(params: Any, piece: Any) -> LossOutput:
        batch, samples, carry = piece
        here = StepKeys(shared=keys.shared, per_sample=samples)
        inputs = LossInputs(networks=networks, batch=batch, keys=here, carry=carry)
        value, aux = objective.loss(params, inputs)
        return value, dataclasses.replace(aux, metrics={"loss": value, **aux.metrics})

    learn = jax.grad(loss, has_aux=True)
    whole = (batch, keys.per_sample, state.carry)
    if objective.accumulate == 1:
        gradient, aux = learn(params, whole)
    else:
        gradient, aux = _accumulated(learn, params, whole, objective.accumulate)
    if objective.trainable is not None:
        # Zeroed here too, though the optimizer masks them: the global norm that clips must be that
        # of the leaves which are trained.
        learns = objective.trainable(params)
        gradient = jax.tree.map(lambda g, yes: g if yes else jnp.zeros_like(g), gradient, learns)
    return gradient, aux


def _accumulated(
    learn: Callable[[Any, Any], tuple[Any, LossAux]], params: Any, whole: Any, pieces: int
) -> tuple[Any, LossAux]:
    """Mean gradient and metrics over the microbatches of a batch, one after the other."""

    def add(total: Any, piece: Any) -> tuple[Any, LossAux]:
        gradient, aux = learn(params, piece)
        return jax.tree.map(jnp.add, total, gradient), aux

    # Microbatch m takes samples m, m + pieces, m + 2 pieces, ... A device holds consecutive
    # samples, so that it finds the same number of every microbatch among its own, and none travel:
    #
    #     device    0 0 0 0 1 1 1 1
    #     sample    0 1 2 3 4 5 6 7       2 microbatches: 0 2 4 6, then 1 3 5 7
    def cut(leaf: Array) -> Array:
        return leaf.reshape(-1, pieces, *leaf.shape[1:]).swapaxes(0, 1)

    # The inverse of `cut`: carried leaves return to the order of the batch.
    def join(leaf: Array) -> Array:
        return leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:])

    total, auxes = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), _map(cut, whole))
    aux = LossAux(
        metrics={name: values.mean() for name, values in auxes.metrics.items()},
        carry=_map(join, auxes.carry),
    )
    # Microbatches have one size, so the mean of their means is the mean over the batch.
    return jax.tree.map(lambda g: g / pieces, total), aux


def _map(change: Callable[[Array], Array], tree: Any) -> Any:
    return jax.tree.map(change, tree)


def _select(condition: Bool[Array, ""], yes: TrainState, no: TrainState) -> TrainState:
    """One of two states, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
