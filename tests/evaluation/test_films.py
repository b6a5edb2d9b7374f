"""Scripts are drawn once and for all; plans without context are those of first shots."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.evaluation.films import (
    count_chunks,
    draw_stories,
    plan_film,
    reconstructed_films,
    true_films,
)
from shotstream_jax.models.vae import decode, encode
from shotstream_jax.story import FrameRef
from shotstream_jax.storyworld.render import render_shot


def true_film(setup, story):
    shots = range(len(story.spec.shots))
    return [render_shot(story.spec, k, video_frames=5, picture=setup.picture) for k in shots]


def test_numbers_of_shots_take_turns_and_neighbours_are_alike():
    stories = draw_stories(7, (4, 2, 3))
    assert [len(story.spec.shots) for story in stories] == [2, 2, 3, 3, 4, 4, 4]


def test_a_story_does_not_depend_on_how_many_are_drawn():
    few, many = draw_stories(3, (3, 2), seed=4), draw_stories(9, (3, 2), seed=4)
    assert all(story in many for story in few)
    assert len({story.seed for story in many}) == 9
    assert draw_stories(3, (3, 2), seed=5) != few
    assert draw_stories(3, (3, 2), seed=4, split="validation") != few


@pytest.mark.parametrize(
    ("stories", "shots", "seed", "message"),
    [
        (0, (3,), 0, "0 stories leave nothing to measure"),
        (1, (1, 3), 0, "Stories of 1 3 shots: each needs 2 to 16"),
        (1, (17,), 0, "Stories of 17 shots"),
        (1, (), 0, "Stories of none shots"),
        (1, (3,), -1, "seed of -1"),
    ],
)
def test_stories_that_there_are_not(stories, shots, seed, message):
    with pytest.raises(ValueError, match=message):
        draw_stories(stories, shots, seed=seed)


@pytest.mark.parametrize(("video_frames", "chunks"), [(5, 1), (13, 2), (21, 3)])
def test_whole_chunks_are_counted(networks, video_frames, chunks):
    assert count_chunks(networks, video_frames) == chunks


@pytest.mark.parametrize(("video_frames", "nearest"), [(0, 5), (4, 5), (12, 13), (14, 13)])
def test_half_chunks_are_refused(networks, video_frames, nearest):
    with pytest.raises(ValueError, match=f"of {video_frames} video .*; ask for {nearest}"):
        count_chunks(networks, video_frames)


def seen(plan):
    """Places and frames of a plan's context; shots carry their place as their number there."""
    return tuple(FrameRef(frame.rope_shot, frame.source.frame) for frame in plan.context)


def test_plans_see_earlier_shots(networks, setup, story):
    plans = plan_film(networks, setup, story)
    assert [plan.rope_shot for plan in plans] == [1, 1, 2]
    assert plans[0].context == ()
    # Six slots, three a shot: its first frame, the middle and the last.
    assert seen(plans[2]) == tuple(FrameRef(shot, frame) for shot in (0, 1) for frame in (0, 2, 4))
    assert {(plan.seed, plan.chunks) for plan in plans} == {(5, 1)}


def test_plans_without_context_are_those_of_first_shots(networks, setup, story):
    plans = plan_film(networks, dataclasses.replace(setup, context=False), story)
    assert {(plan.rope_shot, plan.context) for plan in plans} == {(1, ())}
    assert [plan.index for plan in plans] == [0, 1, 2]


def test_plans_see_the_frames_of_their_policy(networks, setup, story):
    first, ends = (
        seen(plan_film(networks, dataclasses.replace(setup, policy=policy), story)[2])
        for policy in ("first", "ends")
    )
    assert first == tuple(FrameRef(shot, 0) for shot in (0, 0, 0, 1, 1, 1))
    assert ends == tuple(FrameRef(shot, frame) for shot in (0, 1) for frame in (0, 0, 4))


def test_context_may_read_the_caption_of_the_new_shot(networks, setup, story):
    target = dataclasses.replace(setup, captions="target")
    own, replaced = (plan_film(networks, each, story)[2] for each in (setup, target))
    assert len({own.caption, *(frame.caption for frame in own.context)}) == 3
    assert {frame.caption for frame in replaced.context} == {own.caption}


def test_true_films_are_what_the_spec_says(setup, story):
    [film] = true_films(setup)([story])
    np.testing.assert_array_equal(film, true_film(setup, story))


def test_reconstructed_films_went_through_the_autoencoder(networks, setup, story):
    @functools.partial(jax.jit, static_argnums=1)
    def through(params, config, frames):
        latents = encode(params, config, frames.astype(jnp.float32) / 127.5 - 1)
        return jnp.round((jnp.clip(decode(params, config, latents), -1, 1) + 1) * 127.5)

    [film] = reconstructed_films(networks, setup)([story])
    expected = through(networks.vae, networks.config.vae, np.stack(true_film(setup, story)))
    np.testing.assert_allclose(film, expected, atol=1)
