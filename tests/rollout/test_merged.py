"""Merged passes film what separate passes film."""

import dataclasses

import jax
import numpy as np
import pytest

from shotstream_jax.rollout.stream import Camera, plan_for
from shotstream_jax.story import Defaults, Shot, Story
from tests.small_model import Parts

# Four chunks are more than the local window holds; a shot goes on after a shorter one.
STORY = Story(
    title="t",
    shots=(
        Shot(caption="a", chunks=4),
        Shot(caption="b", chunks=1),
        Shot(caption="c", chunks=2, transition="continue"),
        Shot(caption="d", chunks=2),
    ),
    defaults=Defaults(size=(32, 48), seed=5, chunks=3),
    version=1,
)


@pytest.fixture(scope="module")
def merging(networks):
    return dataclasses.replace(networks, merged_passes=True)


def film(networks, remembered=None):
    """Latents of every shot, and the parts that the camera did; the first shot may be given."""
    parts = Parts()
    camera = Camera(networks, STORY.defaults.size, run=parts)
    shots = []
    for index in range(len(STORY.shots)):
        plan = plan_for(networks, STORY, index)
        if index == 0 and remembered is not None:
            for _ in camera.replay(plan, remembered):
                pass
            shots.append(remembered)
            continue
        pieces = [piece.latents for piece in camera.film(plan)]
        shots.append(jax.numpy.concatenate(pieces, axis=1))
    return shots, parts


def test_merged_passes_film_the_same(networks, merging):
    apart, parts = film(networks)
    together, merged = film(merging)
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    assert parts.count("denoise") == 9
    assert merged.count("context pass and denoise") == 3
    assert merged.count("clean pass and denoise") == 5
    # A shot that goes on commits what was filmed to the caption before it, which takes a pass.
    assert (merged.count("clean pass"), merged.count("denoise")) == (1, 1)
    assert "context pass" not in merged


def test_a_shot_filmed_before_is_filmed_on_from(networks, merging):
    """Nothing that a remembered shot leaves undone is done twice, or not at all."""
    apart, _ = film(networks)
    together, merged = film(merging, remembered=apart[0])
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    assert merged.count("context pass and denoise") == 2
