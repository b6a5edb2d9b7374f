"""The optimizer is AdamW with its clip, its schedule and its running mean."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shotstream_jax.train.engine.optimizer import (
    OptimizerConfig,
    ema_update,
    learning_rate,
    make_optimizer,
)

PARAMS = {"kernel": jnp.arange(6.0).reshape(2, 3) / 10, "bias": jnp.ones(3)}


def gradients():
    keys = jax.random.split(jax.random.key(0), 4)
    return [
        jax.tree.map(lambda p, key=key: jax.random.normal(key, p.shape), PARAMS) for key in keys
    ]


def walk(optimizer, rate):
    params, state = PARAMS, optimizer.init(PARAMS)
    for gradient in gradients():
        direction, state = optimizer.update(gradient, state, params)
        params = jax.tree.map(lambda p, d: p - rate * d, params, direction)
    return params


@pytest.mark.parametrize("b1", [0.0, 0.9])
def test_it_walks_as_adamw_does(b1):
    config = OptimizerConfig(
        learning_rate=0.1, b1=b1, b2=0.99, eps=1e-6, weight_decay=0.3, clip=None
    )
    theirs = optax.adamw(-1.0, b1=b1, b2=0.99, eps=1e-6, weight_decay=0.3)
    for ours, expected in zip(
        jax.tree.leaves(walk(make_optimizer(config), 0.1)),
        jax.tree.leaves(walk(theirs, 0.1)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_without_a_mean_gradient_none_is_stored():
    def stored(b1):
        state = make_optimizer(OptimizerConfig(learning_rate=1.0, b1=b1)).init(PARAMS)
        return sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim)

    assert stored(0.0) == 9
    assert stored(0.9) == 18


def test_muon_turns_kernels_and_leaves_the_rest_to_adam():
    """A step along a kernel has no long and no short directions, whatever its gradient has."""
    params = {
        "blocks": {"ffn": {"kernel": jnp.zeros((2, 6, 4)), "bias": jnp.zeros((2, 4))}},
        "head": {"kernel": jnp.zeros((6, 4))},
        "text": {"blocks": {"ffn": {"kernel": jnp.zeros((2, 6, 4))}}},
    }
    steep = jnp.diag(jnp.array([1.0, 1e-2, 3.0, 0.2]), 0)
    gradient = jax.tree.map(lambda p: jnp.ones_like(p) * 1e-3, params)
    gradient["blocks"]["ffn"]["kernel"] = jnp.stack([jnp.pad(steep, ((0, 2), (0, 0)))] * 2)
    gradient["head"]["kernel"] = jnp.pad(steep, ((0, 2), (0, 0)))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1.0, muon=10.0, b1=0.0, clip=None))
    direction, _ = optimizer.update(gradient, optimizer.init(params), params)

    def lengths(matrix):
        return np.linalg.svd(matrix, compute_uv=False)

    for layer in direction["blocks"]["ffn"]["kernel"]:
        assert lengths(layer).max() / lengths(layer).min() < 2
        assert np.all(np.diag(layer) > 0)
    # Adam's step is the sign of the gradient, one tenth of what kernels move at.
    for small in (direction["blocks"]["ffn"]["bias"], *jax.tree.leaves(direction["text"])):
        np.testing.assert_allclose(small, jnp.ones_like(small), rtol=1e-3)
    np.testing.assert_allclose(np.diag(direction["head"]["kernel"]), np.ones(4), rtol=1e-3)


@pytest.mark.parametrize("muon", [None, 2.0])
def test_everything_decays_at_one_rate(muon):
    still = jax.tree.map(jnp.zeros_like, PARAMS)
    config = OptimizerConfig(learning_rate=1.0, muon=muon, weight_decay=0.25)
    optimizer = make_optimizer(config)
    direction, _ = optimizer.update(still, optimizer.init(PARAMS), PARAMS)
    for taken, param in zip(jax.tree.leaves(direction), jax.tree.leaves(PARAMS), strict=True):
        np.testing.assert_allclose(taken, 0.25 * param, rtol=1e-6)


def test_the_whole_gradient_is_clipped_at_once():
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1.0, clip=0.5))
    small = jax.tree.map(lambda p: 1e-3 * jnp.ones_like(p), PARAMS)
    large = jax.tree.map(lambda g: 1e6 * g, small)
    before = optimizer.init(PARAMS)
    _, after_large = optimizer.update(large, before, PARAMS)
    _, after_unit = optimizer.update(jax.tree.map(lambda g: 0.5 * g / 3e-3, small), before, PARAMS)
    for a, b in zip(jax.tree.leaves(after_large), jax.tree.leaves(after_unit), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [2, 2, 2, 2, 2, 2, 2, 2, 2]),
        ({"warmup": 3}, [0.5, 1, 1.5, 2, 2, 2, 2, 2, 2]),
        (
            {"schedule": "cosine", "final": 0.1, "warmup": 4},
            [0.4, 0.8, 1.2, 1.6, 2, 1.7364, 1.1, 0.4636, 0.2],
        ),
    ],
)
def test_schedules(settings, expected):
    config = OptimizerConfig(learning_rate=2.0, **settings)
    rates = [float(learning_rate(config, update, 8)) for update in range(9)]
    np.testing.assert_allclose(rates, expected, rtol=1e-4)


@pytest.mark.parametrize("total_updates", [0, 1, 2, 5])
def test_a_run_shorter_than_its_warm_up_only_rises(total_updates):
    config = OptimizerConfig(learning_rate=2.0, schedule="cosine", warmup=100)
    rates = [float(learning_rate(config, update, total_updates)) for update in range(total_updates)]
    assert all(0 < a < b for a, b in itertools.pairwise(rates))
    assert all(0 < rate <= 2 for rate in rates)


def test_the_mean_forgets_its_start_and_then_follows_slowly():
    one, two = {"x": jnp.zeros(())}, {"x": jnp.ones(())}
    assert ema_update(one, two, 0, 0.99)["x"] == pytest.approx(0.9)
    assert ema_update(one, two, 90, 0.99)["x"] == pytest.approx(0.09)
    assert ema_update(one, two, 10_000, 0.99)["x"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate 0 "),
        ({"learning_rate": float("nan")}, "learning_rate nan"),
        ({"b2": 1.0}, "b2 1 is not in"),
        ({"ema": -0.1}, "ema -0.1 is not in"),
        ({"clip": 0.0}, "clip 0 is not positive"),
        ({"warmup": -1}, "warmup -1"),
        ({"final": 2.0}, "final 2"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**{"learning_rate": 1.0, **settings})
