import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models.rope import (
    MAX_POSITION,
    Rotation,
    axis_pairs,
    grid_positions,
    rotate,
    rotation,
)

SHOT_PHASE = 0.3


def exact_angles(frame, row, col, shot, head_dim):
    """Angles of one token in float64, straight from the definition."""
    time, rows, cols = axis_pairs(head_dim)
    parts = [(frame, time), (row, rows), (col, cols)]
    angles = [place * 10000.0 ** (-np.arange(n) / n) for place, n in parts]
    angles[0] = angles[0] + shot * SHOT_PHASE
    return np.concatenate(angles)


@pytest.mark.parametrize(
    ("head_dim", "pairs"), [(128, (22, 21, 21)), (32, (6, 5, 5)), (16, (4, 2, 2))]
)
def test_pairs_are_shared_among_the_axes(head_dim, pairs):
    assert axis_pairs(head_dim) == pairs


@pytest.mark.parametrize("frame", [0, 26, MAX_POSITION - 1])
@pytest.mark.parametrize("shot", [0, 1, 7])
def test_angles_are_float64_exact(frame, shot):
    positions = grid_positions(jnp.asarray([[frame]]), jnp.asarray([[shot]]), 2, 3)
    angles = rotation(positions, 128, SHOT_PHASE)
    for token, (row, col) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]):
        exact = exact_angles(frame, row, col, shot, 128)
        np.testing.assert_allclose(angles.cos[0, token], np.cos(exact), atol=3e-7)
        np.testing.assert_allclose(angles.sin[0, token], np.sin(exact), atol=3e-7)


def test_tokens_are_frame_major_then_row_then_column():
    positions = grid_positions(jnp.asarray([[4, 9]]), jnp.asarray([[0, 1]]), 2, 2)
    np.testing.assert_array_equal(positions.frame[0], [4, 4, 4, 4, 9, 9, 9, 9])
    np.testing.assert_array_equal(positions.row[0], [0, 0, 1, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(positions.col[0], [0, 1, 0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(positions.shot[0], [0, 0, 0, 0, 1, 1, 1, 1])


def test_a_cut_is_one_constant_phase_on_time_and_nothing_else():
    x = jax.random.normal(jax.random.key(0), (1, 6, 1, 32))
    here, there = (
        rotate(x, rotation(position, 32, SHOT_PHASE))
        for position in (
            grid_positions(jnp.asarray([[3]]), jnp.asarray([[shot]]), 2, 3) for shot in (0, 2)
        )
    )
    time = 2 * axis_pairs(32)[0]
    np.testing.assert_array_equal(here[..., time:], there[..., time:])
    turn = jnp.full((1, 6, 16), 2 * SHOT_PHASE).at[..., time // 2 :].set(0.0)
    expected = rotate(here, Rotation(cos=jnp.cos(turn), sin=jnp.sin(turn)))
    np.testing.assert_allclose(there, expected, atol=1e-6)


def test_logits_depend_on_distance_alone():
    q, k = jax.random.normal(jax.random.key(1), (2, 1, 1, 1, 32))

    def logit(query_frame, key_frame):
        at = [
            rotation(grid_positions(jnp.asarray([[f]]), jnp.zeros((1, 1), int), 1, 1), 32, 0.0)
            for f in (query_frame, key_frame)
        ]
        return jnp.vdot(rotate(q, at[0]), rotate(k, at[1]))

    np.testing.assert_allclose(logit(9, 4), logit(105, 100), rtol=1e-4)
    assert abs(logit(9, 4) - logit(9, 5)) > 1e-3
