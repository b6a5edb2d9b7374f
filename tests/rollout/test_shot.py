"""A shot in one program is, byte for byte, the shot filmed chunk by chunk."""

import dataclasses

import numpy as np
import pytest

from shotstream_jax.rollout.stream import Camera, plan_story
from tests.small_model import Parts


# Seven chunks are more than the local window holds: the cache rolls.
@pytest.mark.parametrize("chunks", [1, 3, 7])
def test_whole_takes_equal_streamed_ones_byte_for_byte(networks, story, chunks):
    shots = (dataclasses.replace(story.shots[0], chunks=chunks), *story.shots[1:])
    story = dataclasses.replace(story, shots=shots, version=1)
    films = []
    for whole in (False, True):
        parts = Parts()
        camera = Camera(networks, story.defaults.size, whole_takes=whole, run=parts)
        pieces = [p for plan in plan_story(networks, story) for p in camera.film(plan)]
        films.append(pieces)
        assert parts.count("denoise whole shot") == (len(story.shots) if whole else 0)
    for one, other in zip(*films, strict=True):
        assert (one.plan, one.chunk) == (other.plan, other.chunk)
        np.testing.assert_array_equal(one.latents, other.latents)
        np.testing.assert_array_equal(one.frames, other.frames)


def test_whole_takes_refuse_positions_that_change_within_one(networks, story):
    long = dataclasses.replace(story.shots[0], chunks=7)
    story = dataclasses.replace(story, shots=(long,), version=2)
    camera = Camera(networks, story.defaults.size, whole_takes=True)
    with pytest.raises(ValueError, match="chunk by chunk"):
        list(camera.film(plan_story(networks, story)[0]))
