"""Estimates of a film: the release's numbers, and how they move with the story."""

import dataclasses

import pytest

from shotstream_jax.models.cache import Window
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.perf.plan.estimate import EngineSizes, estimate, memory
from shotstream_jax.story import Defaults, Shot, Story

RELEASE = EngineSizes()
RATE = 400e12


def film(*shots: Shot, **defaults: object) -> Story:
    return Story(title="A film", shots=shots or (Shot(caption="a"),), defaults=Defaults(**defaults))


def test_a_released_shot_costs_what_was_counted():
    """Published: 1313.4 for the generator, 275.4 to decode (2.65 less with a flat first latent)."""
    first, second = estimate(film(Shot(caption="a"), Shot(caption="b")), RELEASE, RATE).shot_flops
    text = 4.84e12
    assert first == pytest.approx(1313.4e12 + 275.4e12 - 2.65e12 + text, rel=1e-3)
    assert second - first == pytest.approx(6 * 0.99e12, rel=5e-3)


def test_memory_of_the_release():
    held = {name: size / 1e9 for name, size in memory(film(), RELEASE).items()}
    assert held == pytest.approx(
        {
            "generator": 2.84,
            "text encoder": 11.36,
            "autoencoder": 0.25,
            "context cache": 1.73,
            "local cache": 6.04,
            "caption cache": 0.094,
            "decoder cache": 1.89,
            "frames of a chunk": 12 * 480 * 832 * 12 / 1e9,
        },
        rel=2e-2,
    )


def test_memory_does_not_grow_with_the_story():
    long, longer = (memory(film(*[Shot(caption="a")] * n), RELEASE) for n in (10, 100))
    assert long == longer


def test_going_on_saves_the_context_but_sees_more():
    cut = film(Shot(caption="a"), Shot(caption="b"))
    on = film(Shot(caption="a"), Shot(caption="b", transition="continue"))
    narrow = dataclasses.replace(RELEASE, window=Window(local=3))
    assert estimate(on, RELEASE, RATE).seconds > estimate(cut, RELEASE, RATE).seconds
    # With a window of one chunk it sees no more, and the context pass is saved.
    assert estimate(on, narrow, RATE).seconds < estimate(cut, narrow, RATE).seconds


def test_time_follows_length_size_and_rate():
    one = estimate(film(), RELEASE, RATE)
    assert estimate(film(), RELEASE, 2 * RATE).seconds == pytest.approx(one.seconds / 2)
    assert estimate(film(size=(240, 416)), RELEASE, RATE).seconds < one.seconds / 4
    assert estimate(film(chunks=3), RELEASE, RATE).seconds < one.seconds / 2
    assert one.seconds == pytest.approx(sum(one.shot_flops) / RATE)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="give more than 0"):
        estimate(film(), RELEASE, rate)


def test_a_size_that_does_not_divide_into_patches_is_refused():
    odd = dataclasses.replace(RELEASE, dit=DiTConfig(patch=(4, 4)))
    with pytest.raises(ValueError, match="Latents of 2 x 2 do not divide into patches of 4 x 4"):
        estimate(film(size=(16, 16)), odd, RATE)
