"""The student's films are the camera's, and what is given or withheld is."""

import dataclasses

import numpy as np
import pytest

from shotstream_jax.evaluation.student_films import student_films
from shotstream_jax.rollout.stream import stream_story
from shotstream_jax.story import Defaults
from shotstream_jax.storyworld.captions import to_story


def film(networks, setup, story, **how):
    [made] = student_films(networks, dataclasses.replace(setup, **how))([story])
    return made


def test_films_are_what_generate_would_film(networks, setup, story):
    defaults = Defaults(seed=story.seed, size=setup.size, chunks=1)
    pieces = stream_story(networks, to_story(story.spec, "t", defaults))
    made = film(networks, setup, story)
    for piece, shot in zip(pieces, made, strict=True):
        np.testing.assert_array_equal(shot, piece.frames)


def test_given_shots_are_true_and_are_remembered(networks, setup, story, other_past):
    made = film(networks, setup, story, reference_shots=1)
    np.testing.assert_array_equal(made[0], setup.true_shot(story.spec, 0))
    own, other = (film(networks, setup, *how) for how in ((story,), (other_past,)))
    assert np.any(made[1] != own[1])
    assert np.any(film(networks, setup, other_past, reference_shots=1)[1] != made[1])
    assert np.any(other[1] != own[1])


def test_without_context_a_shot_does_not_know_what_came_before(networks, setup, story, other_past):
    made = film(networks, setup, story, context=False)
    for given in (0, 1, 2):
        other = film(networks, setup, other_past, context=False, reference_shots=given)
        np.testing.assert_array_equal(other[2], made[2])
    np.testing.assert_array_equal(made[0], film(networks, setup, story)[0])


def test_what_cannot_be_filmed_is_refused_before_any_work(networks, setup):
    with pytest.raises(ValueError, match="not whole chunks"):
        student_films(networks, dataclasses.replace(setup, video_frames=6))
    dit = dataclasses.replace(networks.config.dit, patch=(4, 4))
    coarse = dataclasses.replace(networks.config, dit=dit)
    with pytest.raises(ValueError, match="width of 48 pixels is not a multiple of 32"):
        student_films(dataclasses.replace(networks, config=coarse), setup)
