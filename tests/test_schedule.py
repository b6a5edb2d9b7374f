import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.schedule import (
    FlowSchedule,
    add_noise,
    velocity_to_x0,
    x0_to_velocity,
)


def test_published_values():
    schedule = FlowSchedule()
    index = [0, 260, 500, 740, 997, 998, 999]
    published = [1000, 957.928772, 888.888916, 737.588623, 23.506365, 15.779093, 7.944390]
    np.testing.assert_allclose(schedule.timesteps[index], published, rtol=1e-7)
    index = [0, 1, 250, 500, 750, 900, 990, 999]
    weights = [
        0,
        0.00095364,
        0.30425838,
        0.83239913,
        1.85583103,
        2.46174836,
        0.56555474,
        0.06055525,
    ]
    np.testing.assert_allclose(schedule.weights[index], weights, atol=2e-6)


def test_levels_fall_and_never_reach_clean():
    for shift in (1.0, 3.0, 8.0):
        sigmas = FlowSchedule(shift=shift).sigmas
        assert sigmas[0] == 1
        assert (np.diff(sigmas) < 0).all()
        assert sigmas[-1] > 0


def test_nearest_level_takes_the_noisier_on_a_tie():
    schedule = FlowSchedule()
    tie = (schedule.timesteps[10] + schedule.timesteps[11]) / 2
    near = schedule.nearest(jnp.asarray([1000.0, 956.0, 888.0, 736.0, 20.0, 0.0]))
    np.testing.assert_array_equal(near, [0, 269, 502, 742, 997, 999])
    assert schedule.nearest(jnp.asarray(tie)) in (10, 11)
    assert schedule.sigma_at(jnp.asarray(0.0)) == schedule.sigmas[999]


def test_noising_and_both_conversions_undo_each_other():
    x0, noise = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    x0, noise = jnp.asarray(x0), jnp.asarray(noise)
    for sigma in (1.0, 0.7376, 0.0079):
        level = jnp.asarray(sigma, jnp.float32)
        x_t = add_noise(x0, noise, level)
        np.testing.assert_allclose(velocity_to_x0(x_t, noise - x0, level), x0, atol=1e-6)
        np.testing.assert_allclose(x0_to_velocity(x_t, x0, level), noise - x0, atol=1e-4)


@pytest.mark.parametrize(
    ("levels", "message"),
    [((), "must lie in"), ((1001, 500), "must lie in"), ((500, 740), "must decrease")],
)
def test_few_step_lists_that_make_no_sense_are_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        FlowSchedule().few_steps(levels)


def test_shift_must_be_positive():
    with pytest.raises(ValueError, match=r"shift 0\.0 must be positive"):
        FlowSchedule(shift=0.0)
