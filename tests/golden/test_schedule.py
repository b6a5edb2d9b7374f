import re

import numpy as np
import pytest

from shotstream_jax.schedule import TRAIN_STEPS, FlowSchedule

NOMINAL = (1000, 740, 500, 260)


@pytest.fixture
def tables(golden):
    recorded = golden.arrays("dit_golden")
    shifts = {re.match(r"sched(\d+)_", name)[1] for name in recorded if name.startswith("sched")}
    assert shifts
    return [(FlowSchedule(shift=float(shift)), f"sched{shift}_", recorded) for shift in shifts]


def test_levels_and_timesteps_to_the_last_bit(tables):
    for schedule, name, recorded in tables:
        np.testing.assert_array_equal(schedule.sigmas, recorded[f"{name}sigmas"])
        np.testing.assert_array_equal(schedule.timesteps, recorded[f"{name}timesteps"])


def test_training_weights(tables, agree):
    for schedule, name, recorded in tables:
        agree(schedule.weights, recorded[f"{name}weights"])


def test_few_step_lists_are_warped_as_recorded(tables):
    for schedule, name, recorded in tables:
        warped = schedule.few_steps(NOMINAL) * np.float32(TRAIN_STEPS)
        np.testing.assert_array_equal(warped, recorded[f"{name}warped"])
