"""Approximations film another film, each from where it first leaves something out."""

import numpy as np
import pytest

from shotstream_jax.models.quantise import Quantised
from shotstream_jax.rollout.approximate import Approximation
from shotstream_jax.rollout.engine import Engine
from shotstream_jax.rollout.networks import approximated
from shotstream_jax.rollout.stream import Camera, plan_for
from shotstream_jax.story import Defaults, Shot, Story
from tests.small_model import Parts


def film(networks, story):
    """Latents of all shots, the camera, and how often it did each part."""
    parts = Parts()
    camera = Camera(networks, story.defaults.size, run=parts)
    latents = [
        np.concatenate(
            [piece.latents for piece in camera.film(plan_for(networks, story, index))], axis=1
        )
        for index in range(len(story.shots))
    ]
    return latents, camera, parts


@pytest.fixture(scope="module")
def short_story():
    shots = (Shot(caption="a"), Shot(caption="b", chunks=1))
    return Story(
        title="t", shots=shots, defaults=Defaults(size=(32, 48), seed=5, chunks=2), version=1
    )


@pytest.fixture(scope="module")
def exact(networks, short_story):
    latents, _, _ = film(networks, short_story)
    return latents


@pytest.mark.parametrize("name", ["int8-cache", "int8-weights"])
def test_8_bits_film_nearly_the_same(networks, exact, short_story, name):
    found, _, _ = film(approximated(networks, Approximation.named([name])), short_story)
    off = np.concatenate([(a - b).ravel() for a, b in zip(exact, found, strict=True)])
    assert 0 < np.sqrt(np.mean(off**2)) < 0.05


# Frames of the first shot that are filmed before anything is left out: one chunk of two, or all.
@pytest.mark.parametrize(("name", "same"), [("no-clean-pass", 2), ("latent-context", 4)])
def test_nothing_changes_before_something_is_left_out(networks, exact, short_story, name, same):
    found, _, _ = film(approximated(networks, Approximation.named([name])), short_story)
    first, second = (
        np.abs(a - b).max(axis=(0, 2, 3, 4)) for a, b in zip(exact, found, strict=True)
    )
    assert np.all(first[:same] < 1e-5)
    assert np.all(first[same:] > 1e-3)
    assert np.all(second > 1e-3)
    assert np.all(np.isfinite(found[1]))


def test_without_clean_passes_none_is_run(networks, short_story):
    _, _, parts = film(approximated(networks, Approximation.named(["no-clean-pass"])), short_story)
    assert "clean pass" not in parts
    assert parts.count("denoise") == 3


def test_latent_context_encodes_nothing_and_keeps_the_frame_that_was_asked_for(
    networks, short_story
):
    latents, camera, parts = film(
        approximated(networks, Approximation.named(["latent-context"])), short_story
    )
    assert "context encode" not in parts
    # Two chunks of two latent frames: the first shows 1 video frame, the others 4 each.
    for frame in plan_for(networks, short_story, 1).context:
        place = 0 if frame.source.frame == 0 else 1 + (frame.source.frame - 1) // 4
        latent = camera.store.latent(frame.source)
        np.testing.assert_array_equal(latent[:, 0], latents[0][:, place])


def test_8_bits_are_where_they_should_be(networks, short_story):
    both = approximated(networks, Approximation.named(["int8-weights", "int8-cache", "int8-cache"]))
    assert both.approximation.names == ("int8-cache", "int8-weights")
    engine = Engine(both, short_story.defaults.size)
    state = engine.cut(plan_for(both, short_story, 0), [])
    assert isinstance(state.cache.kv.key, Quantised)
    assert isinstance(both.dit["blocks"]["ffn"]["up"]["kernel"], Quantised)


def test_nothing_asked_for_is_nothing_changed(networks):
    assert approximated(networks, Approximation.named([])) == networks
