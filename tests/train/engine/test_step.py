"""A step moves its own network by its own optimizer, and nothing when the numbers are bad."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.train.engine.optimizer import Objective, OptimizerConfig
from shotstream_jax.train.engine.state import init_state
from shotstream_jax.train.engine.step import step_keys, take_step
from shotstream_jax.train.losses import LossAux, LossInputs

ADAM = OptimizerConfig(learning_rate=0.1, clip=1.0, weight_decay=0.1)


def noisy_loss(params, inputs):
    """Depends on the keys, on the other network and on what is carried; NaN in, NaN out."""
    noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(inputs.keys.per_sample)
    shift = inputs.networks["other"]["kernel"].sum() + jax.random.normal(inputs.keys.shared)
    guess = (inputs.batch["x"] + noise) @ params["kernel"] + params["bias"] + inputs.carry
    error = jnp.square(guess - shift).mean(axis=1)
    return error.mean(), LossAux(metrics={"largest": error.mean()}, carry=inputs.carry + guess)


def fresh(objectives):
    params = {
        "mine": {"kernel": jnp.ones((3, 2)) / 3, "bias": jnp.zeros(2)},
        "other": {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)},
    }
    carry = jax.ShapeDtypeStruct((8, 2), jnp.float32)
    return init_state(params, objectives, seed=3, carry=carry)


def objectives(**settings):
    return dict.fromkeys(("mine", "other"), Objective(loss=noisy_loss, optimizer=ADAM, **settings))


def batch():
    return {"x": jax.random.normal(jax.random.key(5), (8, 3))}


def take(state, given, **settings):
    step = jax.jit(take_step, static_argnames=("network", "objective", "total_updates"))
    objective = objectives(**settings)["mine"]
    return step(state, {}, given, network="mine", objective=objective, total_updates=10)


def same(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in leaves)


def test_only_its_own_network_moves():
    before = fresh(objectives())
    after, metrics = take(before, batch())
    for name in ("params", "opt_state", "updates"):
        held, now = getattr(before, name), getattr(after, name)
        assert same(held["other"], now["other"])
        assert not same(held["mine"], now["mine"])
    assert int(after.step) == 1
    assert metrics["mine/learning_rate"] == pytest.approx(0.1)
    assert np.any(np.asarray(after.carry) != 0)


def test_the_gradient_norm_is_that_of_the_loss():
    state = fresh(objectives())
    keys = step_keys(state.seed, state.step, 8)

    def loss(params):
        given = LossInputs(networks=state.params, batch=batch(), keys=keys, carry=state.carry)
        return noisy_loss(params, given)[0]

    value, gradient = jax.value_and_grad(loss)(state.params["mine"])
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
    _, metrics = take(state, batch())
    assert metrics["mine/grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert metrics["mine/loss"] == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("pieces", [2, 4, 8])
def test_a_batch_in_pieces_is_the_whole_batch(pieces):
    whole, metrics = take(fresh(objectives()), batch())
    cut, cut_metrics = take(fresh(objectives()), batch(), accumulate=pieces)
    for a, b in zip(
        jax.tree.leaves((whole, metrics)), jax.tree.leaves((cut, cut_metrics)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_the_schedule_follows_the_updates_of_the_network_itself():
    """The third update of nine, at step 7 of a run in which another network moved, too."""
    config = OptimizerConfig(learning_rate=0.1, schedule="cosine")
    both = dict.fromkeys(("mine", "other"), Objective(loss=noisy_loss, optimizer=config))
    state = dataclasses.replace(
        fresh(both),
        step=jnp.asarray(7, jnp.int32),
        updates={"mine": jnp.asarray(2, jnp.int32), "other": jnp.asarray(5, jnp.int32)},
    )
    after, metrics = take_step(
        state, {}, batch(), network="mine", objective=both["mine"], total_updates=9
    )
    assert metrics["mine/learning_rate"] == pytest.approx(0.05 * (1 + np.cos(np.pi * 2 / 9)))
    moved = after.params["mine"]["bias"] - state.params["mine"]["bias"]
    # Adam's first update is the learning rate itself, in the direction of the gradient.
    np.testing.assert_allclose(np.abs(moved), metrics["mine/learning_rate"], rtol=1e-4)
    assert {name: int(count) for name, count in after.updates.items()} == {"mine": 3, "other": 5}


def test_the_average_warms_up_by_the_updates_of_the_network_itself():
    """By hand: d = min(0.5, (1 + update) / (10 + update)), a step without an update not counted."""
    config = OptimizerConfig(learning_rate=0.1, ema=0.5)
    both = dict.fromkeys(("mine", "other"), Objective(loss=noisy_loss, optimizer=config))
    step = jax.jit(take_step, static_argnames=("network", "objective", "total_updates"))
    state = dataclasses.replace(fresh(both), step=jnp.asarray(100, jnp.int32))
    by_hand = np.asarray(state.params["mine"]["kernel"])
    bad = {"x": batch()["x"] * np.nan}
    updates = [(batch(), 1 / 10), (bad, 1.0), (batch(), 2 / 11), (batch(), 3 / 12)]
    for given, decay in updates:
        state, _ = step(state, {}, given, network="mine", objective=both["mine"], total_updates=10)
        by_hand = decay * by_hand + (1 - decay) * np.asarray(state.params["mine"]["kernel"])
        np.testing.assert_allclose(state.ema_params["mine"]["kernel"], by_hand, rtol=1e-6)
    np.testing.assert_array_equal(state.ema_params["other"]["kernel"], np.ones((2, 2)))


def test_microbatches_take_every_nth_sample_and_give_the_carry_back_in_order():
    """Samples 0 to 7 in two microbatches: 0 2 4 6 and 1 3 5 7, which no device must send away."""

    def squared_mean(params, inputs):
        value = jnp.square(inputs.batch["x"].mean()) * params["kernel"].sum()
        return value, LossAux(metrics={}, carry=inputs.carry + inputs.batch["x"])

    sgd = OptimizerConfig(learning_rate=1.0, clip=None)
    objective = Objective(loss=squared_mean, optimizer=sgd, accumulate=2)
    carry = jax.ShapeDtypeStruct((8,), jnp.float32)
    state = init_state({"mine": {"kernel": jnp.ones(1)}}, {"mine": objective}, carry=carry)
    given = {"x": jnp.arange(8.0)}
    after, metrics = take_step(
        state, {}, given, network="mine", objective=objective, total_updates=1
    )
    # The means are 3 and 4; of 0 1 2 3 and 4 5 6 7 they would be 1.5 and 5.5.
    assert metrics["mine/loss"] == pytest.approx((3**2 + 4**2) / 2)
    assert metrics["mine/grad_norm"] == pytest.approx((3**2 + 4**2) / 2)
    np.testing.assert_array_equal(after.carry, np.arange(8))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_numbers_that_are_not_finite_move_nothing(bad):
    before, _ = take(fresh(objectives()), batch())
    spoilt = {"x": batch()["x"].at[2, 1].set(bad)}
    after, metrics = take(before, spoilt)
    for name in ("params", "opt_state", "ema_params", "updates", "carry"):
        assert same(getattr(before, name), getattr(after, name))
    assert [int(after.step), int(after.skipped), int(metrics["skipped_in_row"])] == [2, 1, 1]
    again, _ = take(after, spoilt)
    good, _ = take(again, batch())
    assert [int(good.skipped), int(good.skipped_in_row)] == [2, 0]
    assert not same(good.params, after.params)


def test_what_is_not_trainable_stays_and_has_no_moments():
    def only_bias(params):
        return {"kernel": False, "bias": True}

    state = fresh(objectives(trainable=only_bias))
    after, metrics = take(state, batch(), trainable=only_bias)
    assert same(state.params["mine"]["kernel"], after.params["mine"]["kernel"])
    assert not same(state.params["mine"]["bias"], after.params["mine"]["bias"])
    shapes = {leaf.shape for leaf in jax.tree.leaves(after.opt_state["mine"])}
    assert shapes == {(), (2,)}
    _, everything = take(fresh(objectives()), batch())
    assert metrics["mine/grad_norm"] < everything["mine/grad_norm"]


def test_the_running_mean_follows():
    def with_mean():
        config = OptimizerConfig(learning_rate=0.1, ema=0.5)
        return dict.fromkeys(("mine", "other"), Objective(loss=noisy_loss, optimizer=config))

    state = fresh(with_mean())
    step = jax.jit(take_step, static_argnames=("network", "objective", "total_updates"))
    after, _ = step(
        state, {}, batch(), network="mine", objective=with_mean()["mine"], total_updates=10
    )
    old, new = state.params["mine"]["bias"], after.params["mine"]["bias"]
    np.testing.assert_allclose(after.ema_params["mine"]["bias"], 0.1 * old + 0.9 * new, rtol=1e-6)
    assert after.export_params["mine"] is after.ema_params["mine"]


def test_keys_are_of_seed_step_and_sample_alone():
    def drawn(seed, step, batch):
        keys = step_keys(jnp.asarray(seed, jnp.int32), jnp.asarray(step), batch)
        return np.asarray(jax.random.key_data(keys.per_sample))

    np.testing.assert_array_equal(drawn(0, 5, 8)[:3], drawn(0, 5, 3))
    every = np.concatenate([drawn(seed, step, 4) for seed in range(3) for step in range(3)])
    assert len(np.unique(every, axis=0)) == 36


def test_eight_devices_do_what_one_does():
    script = pathlib.Path(__file__).with_name("step_on_eight_devices.py")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=True
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["devices"] == 8
    assert report["difference"] < 1e-5
    assert report["moved"] > 1e-3
    assert report["kernel"] == report["moment"] == report["mean"] == [2, 2]
    assert report["carry"] == [4, 1]
