"""Estimates of a film: the release's numbers, and how they move with the story."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from shotstream_jax.models.cache import Window
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.perf.plan.estimate import estimate, memory
from shotstream_jax.perf.plan.film_cost import shot_flops
from shotstream_jax.perf.plan.film_programs import film_programs
from shotstream_jax.presets import PRESETS
from shotstream_jax.sharding import make_mesh
from shotstream_jax.story import Defaults, Shot, Story

RELEASE = PRESETS["wan-1.3b"]
RATE = 400e12


def film(*shots: Shot, **defaults: object) -> Story:
    return Story(title="A film", shots=shots or (Shot(caption="a"),), defaults=Defaults(**defaults))


def test_a_story_costs_what_its_shots_cost():
    shots = (Shot(caption="a", chunks=2), Shot(caption="b", chunks=1, transition="continue"))
    found = estimate(film(*shots, Shot(caption="c")), RELEASE, RATE).shot_flops
    one, two, seven = (FilmShape(config=RELEASE, chunks=chunks) for chunks in (1, 2, 7))
    assert found == (
        shot_flops(two, is_first=True),
        shot_flops(one, 2, is_first=False),
        shot_flops(seven, is_first=False),
    )


def test_memory_is_that_of_the_arrays_that_are_held():
    """Of the programs that film in bfloat16; the story has a caption for every context slot."""
    shape = FilmShape(config=RELEASE, compute=Compute(dtype=jnp.bfloat16))
    programs = film_programs(shape, make_mesh(jax.devices()[:1]))
    held = memory(film(*[Shot(caption="a")] * 10), RELEASE)
    cache = programs["commit"].arguments["cache"]
    assert held["context cache"] + held["local cache"] == size(cache.kv)
    assert held["caption cache"] == size(programs["context"].arguments["context"].text, cache.text)
    assert held["generator"] == size(programs["commit"].arguments["dit"])
    assert held["text encoder"] == size(programs["text"].arguments["text"])
    assert held["decoder cache"] == size(programs["decode"].arguments["past"])
    frame = size(programs["video"].arguments["pixels"])
    assert held["frames of a chunk"] == frame * RELEASE.rollout.window.chunk


def size(*trees):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trees))


def test_memory_does_not_grow_with_the_story():
    long, longer = (memory(film(*[Shot(caption="a")] * n), RELEASE) for n in (10, 100))
    assert long == longer


def test_going_on_saves_the_context_but_sees_more():
    cut = film(Shot(caption="a"), Shot(caption="b"))
    on = film(Shot(caption="a"), Shot(caption="b", transition="continue"))
    rollout = dataclasses.replace(RELEASE.rollout, window=Window(local=3))
    narrow = dataclasses.replace(RELEASE, rollout=rollout)
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
    with pytest.raises(ValueError, match="multiple of 32; try 32"):
        estimate(film(size=(16, 16)), odd, RATE)
