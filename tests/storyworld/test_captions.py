"""Captions name what they should, hide what they should, and can be read back."""

import dataclasses
import itertools
import re

import pytest

from shotstream_jax.story import Defaults, full_captions
from shotstream_jax.storyworld.attributes import CHARACTER_NAMED, HIDDEN, NAMED, SHOT_NAMED
from shotstream_jax.storyworld.captions import (
    PHRASES,
    VOCABULARY,
    global_caption,
    parse_story,
    prompts,
    read_caption,
    shot_caption,
    to_story,
)
from shotstream_jax.storyworld.spec import MAX_SHOTS, sample_story

STORIES = [sample_story(0, 4, index=i) for i in range(200)]


def tokens(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def test_global_captions_name_the_character_and_no_scene():
    for spec in STORIES:
        read = read_caption(global_caption(spec))
        assert read == {name: getattr(spec, name) for name in CHARACTER_NAMED}


def test_shot_captions_name_scene_action_and_framing_only():
    for spec in STORIES:
        for k, shot in enumerate(spec.shots):
            assert read_caption(shot_caption(spec, k)) == {
                name: getattr(shot, name) for name in SHOT_NAMED
            }


def test_captions_do_not_depend_on_hidden_attributes():
    for spec in STORIES[:20]:
        for values in itertools.product(*HIDDEN.values()):
            other = dataclasses.replace(spec, **dict(zip(HIDDEN, values, strict=True)))
            assert prompts(other) == prompts(spec)


def test_every_phrase_is_used():
    said = " ".join(text for spec in STORIES for text in prompts(spec))
    for values in PHRASES.values():
        for phrase in itertools.chain.from_iterable(values.values()):
            assert re.search(rf"\b{phrase}\b", said), phrase


def test_the_wording_of_one_truth_varies():
    spec = STORIES[0]
    said = {global_caption(dataclasses.replace(spec, wording=w)) for w in range(100)}
    assert len(said) > 10


def test_phrases_cover_all_named_values_and_never_contradict():
    assert {a: tuple(v) for a, v in PHRASES.items()} == dict(NAMED)
    for values in PHRASES.values():
        for (one, ones), (other, others) in itertools.permutations(values.items(), 2):
            for a, b in itertools.product(ones, others):
                assert f" {a} " not in f" {b} ", (one, other)


def test_the_vocabulary_is_closed_and_has_no_idle_word():
    longest = sample_story(0, MAX_SHOTS)
    said = {t for spec in (*STORIES, longest) for text in prompts(spec) for t in tokens(text)}
    assert said == set(VOCABULARY)


def test_captions_are_short():
    for spec in STORIES:
        assert len(global_caption(spec).split()) <= 16
        assert all(len(shot_caption(spec, k).split()) <= 16 for k in range(len(spec.shots)))
        assert all(len(tokens(text)) <= 40 for text in prompts(spec))


def test_prompts_are_the_full_captions_of_the_story():
    for spec in STORIES[:20]:
        story = to_story(spec, "A film", Defaults(size=(64, 96), fps=8, chunks=2))
        assert full_captions(story) == prompts(spec)


def test_a_parsed_story_is_the_story_that_was_told():
    for spec in STORIES[:50]:
        shots = [shot_caption(spec, k) for k in range(len(spec.shots))]
        told = parse_story(global_caption(spec), shots, seed=5)
        assert {n: getattr(told, n) for n in CHARACTER_NAMED} == {
            n: getattr(spec, n) for n in CHARACTER_NAMED
        }
        for mine, theirs in zip(told.shots, spec.shots, strict=True):
            assert [getattr(mine, n) for n in SHOT_NAMED] == [
                getattr(theirs, n) for n in SHOT_NAMED
            ]


def test_what_captions_cannot_say_comes_from_the_seed():
    caption, shots = "a striped red star", ["it jumps in the snow, close up"]
    assert parse_story(caption, shots, seed=1) == parse_story(caption, shots, seed=1)
    assert len({parse_story(caption, shots, seed=s).sky for s in range(20)}) > 1


def test_the_global_caption_may_speak_for_every_shot():
    told = parse_story("A dipped blue box in the desert, wide shot.", ["It SPINS.", "It waits."])
    assert [shot.scene for shot in told.shots] == ["desert", "desert"]
    assert [shot.action for shot in told.shots] == ["spin", "still"]


def test_a_caption_that_leaves_something_out_is_refused_with_its_choices():
    with pytest.raises(ValueError, match=r"'it jumps in the snow' names no framing .*'wide'"):
        parse_story("a striped red star", ["it jumps in the snow"])
    with pytest.raises(ValueError, match="names no colour"):
        parse_story("a striped star", ["it jumps in the snow, close up"])
