"""What true films score, and what carry-over says of a maker without a memory."""

import dataclasses

import pytest

from shotstream_jax.evaluation.films import EvalSetup, draw_stories, true_films
from shotstream_jax.evaluation.passes import plan_passes, run_passes
from shotstream_jax.storyworld.attributes import HIDDEN, NAMED
from shotstream_jax.storyworld.geometry import Picture

SETUP = EvalSetup(picture=Picture(height=48, width=80), video_frames=13)


@pytest.fixture(scope="module")
def stories():
    return draw_stories(4, (4, 2), seed=3)


def habitual(setup):
    """Films as they are asked for, always with a white trim under an azure sky."""

    def make(stories):
        for story in stories:
            own = dataclasses.replace(story.spec, trim="white", sky="azure")
            specs = [
                story.spec if k < setup.reference_shots else own for k in range(len(own.shots))
            ]
            yield tuple(setup.true_shot(spec, k) for k, spec in enumerate(specs))

    return make


def test_true_films_score_full_marks(stories):
    found = run_passes(true_films, {"own": SETUP}, stories)
    for metric in ("prompt_accuracy", "carry_over", "cut_accuracy", "identity"):
        assert found.metrics[metric].value == 1, metric
    assert found.metrics["motion"].value > 0.95
    assert found.metrics["oracle_accuracy"].value == 1
    assert found.metrics["flicker"].value == 0
    assert found.metrics["carry_over_chance"].value == 0.25
    parts = {name.partition("/")[2] for name in found.metrics if name.startswith("prompt")}
    assert parts == {"", *NAMED}
    shots = sum(len(story.spec.shots) for story in stories)
    assert found.frames == 13 * shots


def test_a_habit_is_not_taken_for_a_memory(stories):
    found = run_passes(habitual, plan_passes(SETUP, given=1), stories)
    assert found.metrics["prompt_accuracy"].value == 1
    assert found.metrics["carry_over_own"].value == 1
    specs = [story.spec for story in stories for _ in story.spec.shots[1:]]
    lucky = {"trim": "white", "sky": "azure"}
    for hidden in HIDDEN:
        share = sum(getattr(spec, hidden) == lucky[hidden] for spec in specs) / len(specs)
        assert share < 1
        assert found.metrics[f"carry_over/{hidden}"].value == pytest.approx(share)
    assert found.metrics["carry_over_no_context"] == found.metrics["carry_over"]


def test_passes_are_no_more_than_are_needed():
    blind = dataclasses.replace(SETUP, context=False)
    assert plan_passes(SETUP, 2) == {
        "own": SETUP,
        "given": dataclasses.replace(SETUP, reference_shots=2),
        "no_context": dataclasses.replace(SETUP, reference_shots=2, context=False),
    }
    assert list(plan_passes(SETUP, 0)) == ["own", "no_context"]
    assert list(plan_passes(blind, 1)) == ["own", "given"]


def test_every_film_is_told_of_once(stories):
    told = []
    passes = {"own": SETUP, "given": dataclasses.replace(SETUP, reference_shots=1)}
    run_passes(true_films, passes, stories[:2], watch=told.append)
    assert [(at.part, at.story, at.done) for at in told] == [
        ("oracle", 0, 1),
        ("oracle", 1, 2),
        ("own", 0, 3),
        ("own", 1, 4),
        ("given", 0, 5),
        ("given", 1, 6),
    ]
    assert {at.total for at in told} == {6}
    assert told[0].film is None
    assert [len(shot) for shot in told[2].film] == [13, 13]


@pytest.mark.parametrize("given", [-1, 2])
def test_a_shot_must_be_left_to_score(stories, given):
    def bind(setup):
        raise AssertionError

    message = f"{given} shots are to be given in stories of 2; give 0 to 1"
    with pytest.raises(ValueError, match=message):
        run_passes(bind, {"given": dataclasses.replace(SETUP, reference_shots=given)}, stories)
