import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.rollout.conditioning import predict_velocity
from shotstream_jax.rollout.teacher import (
    SampleConfig,
    guided_velocity,
    sample_euler,
    sample_shot,
    sample_unipc,
    unipc_tables,
)

SPREAD = 0.3


def gaussian_velocity(x_t, timestep):
    """The exact velocity where clean latents are Gaussian of standard deviation `SPREAD`."""
    sigma = timestep / 1000
    variance = (1 - sigma) ** 2 * SPREAD**2 + sigma**2
    return (sigma - (1 - sigma) * SPREAD**2) / variance * x_t


@pytest.fixture
def noise():
    return jax.random.normal(jax.random.key(0), (1, 2, 2, 2, 4))


def test_both_solvers_find_the_gaussian(noise):
    exact = SPREAD * noise

    def error(x0):
        return float(jnp.abs(x0 - exact).max())

    steps = [64, 128]
    euler = [error(sample_euler(gaussian_velocity, noise, SampleConfig(steps=n)).x0) for n in steps]
    unipc = [error(sample_unipc(gaussian_velocity, noise, SampleConfig(steps=n))) for n in steps]
    # First order halves its error with twice the steps; second order leaves it behind.
    assert 1.8 < euler[0] / euler[1] < 2.2
    assert unipc[0] < euler[0] / 2
    assert unipc[1] < euler[1] / 10


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_solvers_are_exact_when_the_network_knows_the_answer(noise, steps):
    clean = jnp.full_like(noise, 0.7)

    def knowing(x_t, timestep):
        return (x_t - clean) / (timestep / 1000)

    x0 = sample_euler(knowing, noise, SampleConfig(steps=steps)).x0
    np.testing.assert_allclose(x0, clean, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_unipc_rows_keep_a_straight_path_straight(steps):
    """Fed samples of one path and its true end, every row must give the next sample of the path."""
    sigmas, correct, predict = (np.asarray(t, np.float64) for t in unipc_tables(steps, 8.0))
    ends = np.append(sigmas, 0)
    for i in range(steps):
        if i:
            kept = correct[i, 0]
            np.testing.assert_allclose(kept, sigmas[i] / sigmas[i - 1], rtol=1e-5)
            expected = (1 - sigmas[i]) - kept * (1 - sigmas[i - 1])
            np.testing.assert_allclose(correct[i, 1:4].sum(), expected, atol=1e-6)
            assert correct[i, 4] == 0
        kept = predict[i, 0]
        np.testing.assert_allclose(kept, ends[i + 1] / ends[i], rtol=1e-5)
        expected = (1 - ends[i + 1]) - kept * (1 - ends[i])
        np.testing.assert_allclose(predict[i, 1:].sum(), expected, atol=1e-6)


def test_kept_states_are_the_inputs_of_their_steps(noise):
    seen = []

    def spy(x_t, timestep):
        jax.debug.callback(lambda x, t: seen.append((float(t), np.array(x))), x_t, timestep)
        return gaussian_velocity(x_t, timestep)

    config = SampleConfig(steps=5, keep=(0, 2, 4))
    sampled = jax.jit(lambda noise: sample_euler(spy, noise, config))(noise)
    jax.effects_barrier()
    seen = [x for _, x in sorted(seen, key=lambda pair: -pair[0])]
    np.testing.assert_array_equal(sampled.kept, [seen[0], seen[2], seen[4]])


@pytest.fixture(scope="module")
def branches(small_film):
    """The four shots of a film, and the same read to a negative prompt."""
    text = jax.random.normal(jax.random.key(1), small_film.conditioning.text[:1, :1].shape)
    negative = dataclasses.replace(
        small_film.conditioning, text=jnp.broadcast_to(text, (4, *text.shape[1:]))
    )
    return small_film.conditioning, negative, text


def test_guidance_mixes_two_answers_and_one_is_the_captions_alone(small_film, branches):
    network, x_t = (small_film.params, small_film.config), small_film.latents(2, 3)
    conditioning, negative, _ = branches

    def answer(guidance, conditioning):
        velocity = guided_velocity(*network, conditioning, negative, guidance)
        return jax.jit(velocity)(x_t, jnp.asarray(500.0))

    prompted, unprompted = answer(1.0, conditioning), answer(1.0, negative)
    alone = predict_velocity(*network, conditioning, x_t, jnp.full((4, 1), 500.0))
    np.testing.assert_allclose(prompted, alone, atol=1e-5)
    mixed = unprompted + 6.0 * (prompted - unprompted)
    np.testing.assert_allclose(answer(6.0, conditioning), mixed, atol=1e-4)


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_a_shot_is_sampled_by_the_solver_that_is_asked_for(small_film, branches, solver):
    network, noise = (small_film.params, small_film.config), small_film.latents(3, 2)
    conditioning, negative, text = branches
    config = SampleConfig(solver=solver, steps=3, guidance=2.0)

    @jax.jit
    def both(noise):
        sampled = sample_shot(*network, conditioning, text, noise, sample=config)
        velocity = guided_velocity(*network, conditioning, negative, config.guidance)
        return (
            sampled.x0,
            sample_euler(velocity, noise, config).x0,
            sample_unipc(velocity, noise, config),
        )

    found, euler, unipc = both(noise)
    expected, other = (euler, unipc) if solver == "euler" else (unipc, euler)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert jnp.abs(found - other).max() > 1e-3


def test_only_euler_keeps_inputs_of_steps():
    with pytest.raises(ValueError, match=r"steps \(0, 2\) are to be kept and the solver is unipc"):
        SampleConfig(solver="unipc", steps=4, keep=(0, 2))
