import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models.dit import encode_captions
from shotstream_jax.rollout.teacher import (
    SampleConfig,
    Scene,
    guided_velocity,
    sample_euler,
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


def test_guidance_mixes_two_answers_and_one_is_the_captions_alone(networks):
    config = networks.config.dit
    captions = encode_captions(networks.dit, config, networks.encode_text(["a", "b"])[None])
    negative = encode_captions(networks.dit, config, networks.encode_text(["no"])[None])
    shots = jnp.asarray([[0, 0, 1, 1, 1]])
    context, x_t = (jax.random.normal(jax.random.key(n), (1, n, 4, 6, 4)) for n in (2, 3))

    def answer(guidance, text):
        scene = Scene(context=context, shots=shots, captions=shots, text=text)
        blank = dataclasses.replace(scene, text=negative)
        velocity = guided_velocity(networks.dit, config, scene, blank, guidance)
        return jax.jit(velocity)(x_t, jnp.asarray(500.0))

    prompted, unprompted = answer(1.0, captions), answer(1.0, negative)
    assert prompted.shape == x_t.shape
    mixed = unprompted + 6.0 * (prompted - unprompted)
    np.testing.assert_allclose(answer(6.0, captions), mixed, atol=1e-4)
