import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.rollout.conditioning import negative_conditioning
from shotstream_jax.schedule import FlowNoise, FlowSchedule
from shotstream_jax.train.objectives.dmd import (
    DMDConfig,
    GeneratorNoise,
    ScoreNetworks,
    critic_loss,
    dmd_direction,
    dmd_loss,
    generator_loss,
)
from shotstream_jax.train.objectives.reference_compat import clamped_timesteps
from shotstream_jax.train.objectives.self_forcing import (
    SelfForcing,
    draw_rollout_noise,
    recompute_exit_steps,
    rollout_no_grad,
)

FRAMES = 4
TIMESTEPS = (950.0, 700.0, 400.0, 100.0)


@pytest.fixture(scope="module")
def negative(film_of_four):
    config = film_of_four.config
    return jax.random.normal(jax.random.key(1), (1, 1, config.text_tokens, config.text_dim))


@pytest.fixture(scope="module")
def latents(film_of_four):
    return film_of_four.latents(2, FRAMES)


@pytest.fixture(scope="module")
def draw(latents):
    noise = jax.random.normal(jax.random.key(3), latents.shape)
    return FlowNoise(timesteps=jnp.asarray(TIMESTEPS), noise=noise)


@pytest.fixture(scope="module")
def agreeing(film_of_four):
    return ScoreNetworks(real=film_of_four.params, fake=film_of_four.params)


@pytest.fixture(scope="module")
def scores(film_of_four):
    """A fake score that has moved away from the real one."""
    moved = jax.tree.map(lambda leaf: 1.1 * leaf, film_of_four.params)
    return ScoreNetworks(real=film_of_four.params, fake=moved)


def direction_program(film_of_four, negative, dmd):
    how = {"config": film_of_four.config, "negative": negative, "dmd": dmd}
    return jax.jit(functools.partial(dmd_direction, **how))


@pytest.fixture(scope="module")
def direct(film_of_four, negative):
    return direction_program(film_of_four, negative, DMDConfig())


@pytest.fixture(scope="module")
def unguided(film_of_four, negative):
    return direction_program(film_of_four, negative, DMDConfig(guidance=1.0))


def test_scores_that_agree_give_no_direction(
    film_of_four, unguided, latents, agreeing, scores, draw
):
    conditioning = film_of_four.conditioning
    nowhere = unguided(latents, scores=agreeing, conditioning=conditioning, draw=draw)
    assert not nowhere.any()
    assert dmd_loss(latents, nowhere) == 0
    assert unguided(latents, scores=scores, conditioning=conditioning, draw=draw).any()


def test_guidance_goes_away_from_the_negative_prompt(
    film_of_four, direct, latents, agreeing, negative, draw
):
    conditioning = film_of_four.conditioning
    away = direct(latents, scores=agreeing, conditioning=conditioning, draw=draw)
    assert (jnp.abs(away).max(axis=(1, 2, 3, 4)) > 1e-3).all()
    told = dataclasses.replace(
        conditioning, text=jnp.broadcast_to(negative, conditioning.text.shape)
    )
    same = direct(latents, scores=agreeing, conditioning=told, draw=draw)
    np.testing.assert_allclose(same, 0, atol=1e-5)


def test_guidance_by_history_goes_away_from_shots_without_any(
    film_of_four, latents, agreeing, negative, draw
):
    direct = direction_program(film_of_four, negative, DMDConfig(history_guidance=True))
    told = negative_conditioning(film_of_four.conditioning, negative)
    away = direct(latents, scores=agreeing, conditioning=told, draw=draw)
    has_history = told.context.any(axis=(1, 2, 3, 4))
    assert 0 < has_history.sum() < len(has_history)
    np.testing.assert_array_equal(jnp.abs(away).max(axis=(1, 2, 3, 4)) > 1e-3, has_history)


def test_every_sample_has_its_own_timestep_and_scale(film_of_four, direct, latents, scores, draw):
    conditioning = film_of_four.conditioning
    before = direct(latents, scores=scores, conditioning=conditioning, draw=draw)
    further = latents.at[1].add(5.0)
    after = direct(further, scores=scores, conditioning=conditioning, draw=draw)
    moved = (before != after).any(axis=(1, 2, 3, 4))
    assert moved.tolist() == [False, True, False, False]


def test_no_distance_to_the_real_score_is_no_division_by_zero(film_of_four, direct, latents, draw):
    silent = jax.tree.map(jnp.zeros_like, film_of_four.params)
    nothing = dataclasses.replace(draw, noise=jnp.zeros_like(latents))
    direction = direct(
        jnp.zeros_like(latents),
        scores=ScoreNetworks(real=silent, fake=silent),
        conditioning=film_of_four.conditioning,
        draw=nothing,
    )
    assert (direction == 0).all()


def test_gradient_of_the_loss_is_direction_over_elements(latents):
    direction = jax.random.normal(jax.random.key(4), latents.shape)
    value, gradient = jax.jit(jax.value_and_grad(dmd_loss))(latents, direction)
    # The latents come back out of a difference: a rounding error of theirs remains.
    np.testing.assert_allclose(gradient * latents.size, direction, atol=1e-5)
    assert float(value) == pytest.approx(0.5 * float(jnp.square(direction).mean()), rel=1e-5)


@pytest.fixture(scope="module")
def generator_step(film_of_four, negative, draw):
    """The whole generator loss of one batch, and what it is made of."""
    forcing = SelfForcing(rollout=film_of_four.rollout)
    keys = jax.random.split(jax.random.key(5), len(TIMESTEPS))
    rollout = draw_rollout_noise(
        jax.random.key(6), keys, draw.noise.shape[1:], film_of_four.rollout
    )
    how = {"forcing": forcing, "dmd": DMDConfig()}

    def loss(params, scores):
        return generator_loss(
            params,
            film_of_four.config,
            scores,
            film_of_four.conditioning,
            negative,
            GeneratorNoise(rollout=rollout, score=draw),
            **how,
        )

    return rollout, forcing, jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


def test_generator_alone_learns_and_through_its_exit_steps_alone(
    film_of_four, generator_step, direct, scores, draw
):
    rollout, forcing, step = generator_step
    params, config, conditioning = (
        film_of_four.params,
        film_of_four.config,
        film_of_four.conditioning,
    )
    (value, aux), (gradient, of_scores) = step(params, scores)
    assert not any(leaf.any() for leaf in jax.tree.leaves(of_scores))

    @jax.jit
    def by_hand(params, result, direction):
        again = functools.partial(
            recompute_exit_steps,
            config=config,
            conditioning=conditioning,
            result=result,
            exit_step=rollout.exit_step,
        )
        _, pull = jax.vjp(lambda params: again(params, forcing=forcing), params)
        return pull(direction / direction.size)[0]

    direction = direct(aux.result.latents, scores=scores, conditioning=conditioning, draw=draw)
    assert float(aux.direction_abs_mean) == pytest.approx(
        float(jnp.abs(direction).mean()), rel=1e-4
    )
    assert float(value) == pytest.approx(0.5 * float(jnp.square(direction).mean()), rel=1e-4)
    expected = by_hand(params, aux.result, direction)
    for ours, theirs in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * scale)


def test_latents_that_are_scored_are_those_that_were_rolled_out(
    film_of_four, generator_step, scores
):
    rollout, forcing, step = generator_step
    (_, aux), _ = step(film_of_four.params, scores)
    again = jax.jit(
        functools.partial(rollout_no_grad, config=film_of_four.config, forcing=forcing)
    )(film_of_four.params, conditioning=film_of_four.conditioning, draw=rollout)
    np.testing.assert_allclose(aux.result.latents, again.latents, rtol=1e-4, atol=1e-5)


def test_critic_learns_and_the_latents_do_not(film_of_four, latents, draw):
    @functools.partial(jax.jit)
    @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def step(params, latents):
        conditioning, config = film_of_four.conditioning, film_of_four.config
        return critic_loss(params, config, conditioning, latents, draw, dmd=DMDConfig())

    (value, errors), (gradient, of_latents) = step(film_of_four.params, latents)
    assert errors.shape == (len(TIMESTEPS),)
    assert float(value) == pytest.approx(float(errors.mean()), rel=1e-6)
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))
    assert not of_latents.any()


def test_timesteps_to_draw_from():
    every = FlowSchedule().timesteps
    inside = DMDConfig().timestep_table
    assert inside.tolist() == [t for t in every.tolist() if 20 <= t <= 980]
    clamped = clamped_timesteps(FlowSchedule(), (20.0, 980.0))
    assert (clamped.size, clamped.min(), clamped.max()) == (1000, 20, 980)
    assert (clamped == 980).mean() == pytest.approx(1 / 7, abs=0.01)
    with pytest.raises(ValueError, match=r"No training timestep lies in \(1\.0, 2\.0\)"):
        DMDConfig(timesteps=(1.0, 2.0))
