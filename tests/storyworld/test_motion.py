"""Actions move the character the way they are called, inside the frame, at any length."""

import itertools

import numpy as np
import pytest

from shotstream_jax.storyworld.attributes import ACTIONS, FRAMINGS, SHAPES
from shotstream_jax.storyworld.geometry import ACTION_FPS, Picture
from shotstream_jax.storyworld.motion import TURN_SECONDS, poses
from shotstream_jax.storyworld.shapes import body_extent
from shotstream_jax.storyworld.spec import ShotSpec

PICTURES = [Picture(height=64, width=96), Picture(height=48, width=80)]


def act(action: str, frames: int = 21, shape: str = "circle", **fields):
    shot = ShotSpec(scene="city", action=action, framing=fields.pop("framing", "wide"), **fields)
    return poses(shape, shot, frames, PICTURES[0])


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("frames", [9, 21, 81])
def test_no_action_leaves_the_frame(picture, frames):
    for shape, action, framing, offset, phase in itertools.product(
        SHAPES, ACTIONS, FRAMINGS, (-1.0, 1.0), (0.0, 0.4)
    ):
        shot = ShotSpec(
            scene="snow", action=action, framing=framing, offset=offset, scale=1.03, phase=phase
        )
        seen = poses(shape, shot, frames, picture)
        reach = body_extent(shape) * seen.radius
        assert np.abs(seen.x).max() + reach < picture.half_width
        assert seen.y.min() - reach * seen.stretch.max() > 0
        assert seen.floor < 1


@pytest.mark.parametrize("frames", [9, 21, 81])
def test_walks_cross_the_room_in_their_direction(frames):
    left, right = act("walk_left", frames), act("walk_right", frames)
    assert (np.diff(left.x) < 0).all()
    assert (np.diff(right.x) > 0).all()
    assert right.x[-1] - right.x[0] > 0.5
    assert (left.gaze, right.gaze) == (-1, 1)


@pytest.mark.parametrize("phase", [0.0, 0.25, 0.5, 0.75])
def test_a_jump_leaves_the_ground_and_comes_back_within_nine_frames(phase):
    seen = act("jump", 9, phase=phase)
    assert np.ptp(seen.y) > 0.15
    assert np.ptp(seen.x) == 0


def test_a_spin_turns_clockwise_once_in_its_time():
    seen = act("spin", 21)
    assert seen.angle[0] == 0
    assert seen.angle[-1] == pytest.approx(2 * np.pi * 20 / ACTION_FPS / TURN_SECONDS)


def test_standing_still_is_nearly_still():
    seen = act("still", 81)
    assert np.ptp(seen.x) == 0
    assert np.ptp(seen.y) < 0.02
    assert not seen.angle.any()


@pytest.mark.parametrize("action", ["still", "jump", "walk_left"])
def test_a_standing_body_keeps_its_feet_on_the_ground(action):
    seen = act(action, 81, phase=0.1)
    feet = seen.y + seen.radius * seen.stretch
    assert feet.max() == pytest.approx(seen.floor, abs=0.005)
    assert feet.max() < seen.floor + 1e-5


def test_poses_of_some_frames_are_those_frames():
    seen = act("walk_right")
    chosen = seen.at(np.asarray([3, 20]))
    np.testing.assert_array_equal(chosen.x, seen.x[[3, 20]])
    assert chosen.radius == seen.radius
