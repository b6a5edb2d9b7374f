import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.train.causal_init import OdePair, causal_init_loss, draw_levels

STEPS = 3
LEVELS = ((0, 1, 2), (3, 0, 1), (2, 3, 3), (1, 1, 0))
"""Level of every chunk of four samples; 3 is clean."""


@pytest.fixture(scope="module")
def pair(film_of_four):
    frames = film_of_four.rollout.window.local
    states = [film_of_four.latents(seed, frames) for seed in range(STEPS + 1)]
    return OdePair(given=film_of_four.given, trajectory=jnp.stack(states, axis=1))


@pytest.fixture(scope="module")
def loss(film_of_four):
    how = {"config": film_of_four.config, "rollout": film_of_four.rollout}
    return jax.jit(functools.partial(causal_init_loss, **how))


@pytest.fixture(scope="module")
def sway(film_of_four, loss, pair):
    """How strongly each state of each chunk moves the error of chunk number `chunk`."""

    @jax.jit
    def of(chunk, levels):
        def error(trajectory):
            moved = dataclasses.replace(pair, trajectory=trajectory)
            return loss(film_of_four.params, pair=moved, levels=levels)[1][:, chunk].sum()

        gradient = jnp.abs(jax.grad(error)(pair.trajectory)).sum(axis=(3, 4, 5))
        batch, states, frames = gradient.shape
        return gradient.reshape(batch, states, frames // 2, 2).sum(axis=3)

    return of


def test_only_noisy_chunks_are_scored(film_of_four, loss, pair):
    levels = np.asarray(LEVELS)
    value, errors = loss(film_of_four.params, pair=pair, levels=jnp.asarray(levels))
    noisy = levels < STEPS
    assert (errors[~noisy] == 0).all()
    assert (errors[noisy] > 0).all()
    assert float(value) == pytest.approx(float(errors[noisy].mean()), rel=1e-5)


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_chunks_see_themselves_and_earlier_chunks_each_at_its_own_level(sway, chunk):
    moved = np.asarray(sway(chunk, jnp.asarray(LEVELS))) > 0
    for sample, levels in enumerate(LEVELS):
        if levels[chunk] == STEPS:
            assert not moved[sample].any()
            continue
        seen = {(level, earlier) for earlier, level in enumerate(levels[: chunk + 1])}
        aim = {(STEPS, chunk)}
        assert set(zip(*np.nonzero(moved[sample]), strict=True)) == seen | aim


def test_nothing_to_learn_is_a_loss_and_a_gradient_of_zero(film_of_four, loss, pair):
    clean = jnp.full((4, 3), STEPS)

    def value(params):
        return loss(params, pair=pair, levels=clean)[0]

    value, gradients = jax.jit(jax.value_and_grad(value))(film_of_four.params)
    assert float(value) == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradients))


def test_a_sample_always_has_a_noisy_chunk():
    # Of single chunks with two levels, half would come out clean.
    assert (draw_levels(jax.random.key(0), 200, 1, 1) == 0).all()
    levels = np.asarray(draw_levels(jax.random.key(1), 600, 2, STEPS))
    assert (levels < STEPS).any(axis=1).all()
    assert set(levels.ravel().tolist()) == set(range(STEPS + 1))
    # One clean chunk of two stays as likely as any: levels are repaired, not avoided.
    assert (levels == STEPS).any(axis=1).mean() == pytest.approx(7 / 16, abs=0.08)


def test_a_trajectory_that_does_not_fit_is_refused(film_of_four, pair):
    call = functools.partial(
        causal_init_loss, film_of_four.params, film_of_four.config, rollout=film_of_four.rollout
    )
    short = dataclasses.replace(pair, trajectory=pair.trajectory[:, 1:])
    with pytest.raises(ValueError, match="3 states for 3 steps"):
        call(short, jnp.asarray(LEVELS))
    ragged = dataclasses.replace(pair, trajectory=pair.trajectory[:, :, 1:])
    with pytest.raises(ValueError, match="5 frames for 3 chunks of 2"):
        call(ragged, jnp.asarray(LEVELS))
