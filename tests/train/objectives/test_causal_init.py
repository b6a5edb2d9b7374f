import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.train.objectives.causal_init import OdePair, causal_init_loss, draw_levels

STEPS = 3
LEVELS = ((0, 1, 2), (3, 0, 1), (2, 3, 3), (1, 1, 0))
"""Level of every chunk of four samples; 3 is clean."""


@pytest.fixture(scope="module")
def pair(film_of_four):
    frames = film_of_four.rollout.window.local
    states = [film_of_four.latents(seed, frames) for seed in range(STEPS + 1)]
    return OdePair(conditioning=film_of_four.conditioning, trajectory=jnp.stack(states, axis=1))


@pytest.fixture(scope="module")
def probe(film_of_four, pair):
    """Loss and errors at some levels, and the gradient of either in parameters and trajectory."""
    how = {"config": film_of_four.config, "rollout": film_of_four.rollout}

    @jax.jit
    def at(levels, of_loss, of_errors):
        def loss(params, trajectory):
            moved = dataclasses.replace(pair, trajectory=trajectory)
            return causal_init_loss(params, pair=moved, levels=levels, **how)

        answer, pull = jax.vjp(loss, film_of_four.params, pair.trajectory)
        return *answer, *pull((of_loss, of_errors))

    return lambda levels, of_loss=0.0, of_errors=0.0: at(
        jnp.asarray(levels), jnp.asarray(of_loss), jnp.zeros((4, 3)) + jnp.asarray(of_errors)
    )


def test_only_noisy_chunks_are_scored(probe):
    value, errors, *_ = probe(LEVELS)
    noisy = np.asarray(LEVELS) < STEPS
    assert (errors[~noisy] == 0).all()
    assert (errors[noisy] > 0).all()
    samples = [row[scored].mean() for row, scored in zip(errors, noisy, strict=True)]
    assert float(value) == pytest.approx(float(np.mean(samples)), rel=1e-5)


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_chunks_see_themselves_and_earlier_chunks_each_at_its_own_level(probe, chunk):
    _, _, _, gradient = probe(LEVELS, of_errors=jnp.arange(3) == chunk)
    by_chunk = np.abs(gradient).sum(axis=(3, 4, 5)).reshape(4, STEPS + 1, 3, -1).sum(axis=3)
    for levels, moved in zip(LEVELS, by_chunk > 0, strict=True):
        if levels[chunk] == STEPS:
            assert not moved.any()
            continue
        seen = {(level, earlier) for earlier, level in enumerate(levels[: chunk + 1])}
        aim = {(STEPS, chunk)}
        assert set(zip(*np.nonzero(moved), strict=True)) == seen | aim


def test_nothing_to_learn_is_a_loss_and_a_gradient_of_zero(probe):
    value, _, gradients, _ = probe(np.full((4, 3), STEPS), of_loss=1.0)
    assert float(value) == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradients))
    _, _, gradients, _ = probe(LEVELS, of_loss=1.0)
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients))


def test_a_sample_always_has_a_noisy_chunk():
    samples = jax.random.split(jax.random.key(0), 600)
    draw = jax.jit(draw_levels, static_argnums=(1, 2))
    # Of single chunks with two levels, half would come out clean.
    assert (draw(samples, 1, 1) == 0).all()
    levels = np.asarray(draw(samples, 2, STEPS))
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
