"""Stories are functions of their key, and splits never share one."""

import dataclasses
import itertools

import pytest

from shotstream_jax.storyworld.attributes import ATTRIBUTES
from shotstream_jax.storyworld.spec import (
    MAX_SHOTS,
    SPLITS,
    sample_story,
    true_value,
)


def test_a_story_is_a_function_of_its_key():
    assert sample_story(3, 4, "test", index=7) == sample_story(3, 4, "test", index=7)


@pytest.mark.parametrize("other", [(4, 4, "test", 7), (3, 5, "test", 7), (3, 4, "test", 8)])
def test_every_part_of_the_key_counts(other):
    seed, shots, split, index = other
    story = sample_story(3, 4, "test", index=7)
    assert sample_story(seed, shots, split, index=index).wording != story.wording


def test_splits_share_no_story():
    drawn = {split: {sample_story(0, 2, split, index=i) for i in range(200)} for split in SPLITS}
    assert all(len(stories) == 200 for stories in drawn.values())
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["train"] & drawn["test"]
    assert not drawn["validation"] & drawn["test"]


def test_every_value_of_every_attribute_is_drawn_about_as_often():
    stories = [sample_story(1, 1, index=i) for i in range(1000)]
    for attribute, values in ATTRIBUTES.items():
        drawn = [true_value(story, 0, attribute) for story in stories]
        for value in values:
            assert drawn.count(value) == pytest.approx(1000 / len(values), rel=0.3)


def test_neighbouring_shots_never_share_scene_and_framing():
    for index in range(200):
        shots = sample_story(2, 5, index=index).shots
        for before, after in itertools.pairwise(shots):
            assert (before.scene, before.framing) != (after.scene, after.framing)


def test_stories_stay_in_a_scene_and_come_back_to_one():
    stories = [sample_story(5, 4, index=i).shots for i in range(100)]
    assert any(a.scene == b.scene for shots in stories for a, b in itertools.pairwise(shots))
    assert any(shots[0].scene == shots[2].scene != shots[1].scene for shots in stories)


@pytest.mark.parametrize("field", ["shape", "colour", "pattern", "trim", "sky"])
def test_a_character_of_another_world_is_refused(field):
    with pytest.raises(ValueError, match=f"{field} 'plaid' is not in StoryWorld"):
        dataclasses.replace(sample_story(0, 1), **{field: "plaid"})


@pytest.mark.parametrize("field", ["scene", "action", "framing"])
def test_a_shot_of_another_world_is_refused(field):
    with pytest.raises(ValueError, match=f"{field} 'plaid' is not in StoryWorld"):
        dataclasses.replace(sample_story(0, 1).shots[0], **{field: "plaid"})


@pytest.mark.parametrize("shots", [0, MAX_SHOTS + 1])
def test_a_story_has_one_to_max_shots(shots):
    with pytest.raises(ValueError, match=f"not {shots}"):
        sample_story(0, shots)


def test_an_unknown_split_is_refused():
    # Beneath the type checker, which would refuse it first.
    unchecked = getattr(sample_story, "__wrapped__", sample_story)
    with pytest.raises(ValueError, match="'dev' does not exist"):
        unchecked(0, 1, "dev")
