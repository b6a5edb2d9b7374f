"""What true films score, and what carry-over says of a maker without a memory."""

import dataclasses

import pytest

from shotstream_jax.evaluation.films import Shoot, draw_scripts, true_films
from shotstream_jax.evaluation.passes import plan_passes, run_passes
from shotstream_jax.storyworld.attributes import HIDDEN, NAMED
from shotstream_jax.storyworld.geometry import Picture

SHOOT = Shoot(picture=Picture(height=48, width=80), video_frames=13)


@pytest.fixture(scope="module")
def scripts():
    return draw_scripts(4, (4, 2), seed=3)


def habitual(shoot):
    """Films as they are asked for, always with a white trim under an azure sky."""

    def make(scripts):
        for script in scripts:
            own = dataclasses.replace(script.spec, trim="white", sky="azure")
            specs = [script.spec if k < shoot.given else own for k in range(len(own.shots))]
            yield tuple(shoot.true_shot(spec, k) for k, spec in enumerate(specs))

    return make


def test_true_films_score_full_marks(scripts):
    found = run_passes(true_films, {"own": SHOOT}, scripts)
    for metric in ("prompt_accuracy", "carry_over", "cut_accuracy", "identity"):
        assert found.metrics[metric].value == 1, metric
    assert found.metrics["motion"].value > 0.95
    assert found.metrics["oracle_accuracy"].value == 1
    assert found.metrics["flicker"].value == 0
    assert found.metrics["carry_over_chance"].value == 0.25
    parts = {name.partition("/")[2] for name in found.metrics if name.startswith("prompt")}
    assert parts == {"", *NAMED}
    shots = sum(len(script.spec.shots) for script in scripts)
    assert found.frames == 13 * shots


def test_a_habit_is_not_taken_for_a_memory(scripts):
    found = run_passes(habitual, plan_passes(SHOOT, given=1), scripts)
    assert found.metrics["prompt_accuracy"].value == 1
    assert found.metrics["carry_over_own"].value == 1
    specs = [script.spec for script in scripts for _ in script.spec.shots[1:]]
    lucky = {"trim": "white", "sky": "azure"}
    for hidden in HIDDEN:
        share = sum(getattr(spec, hidden) == lucky[hidden] for spec in specs) / len(specs)
        assert share < 1
        assert found.metrics[f"carry_over/{hidden}"].value == pytest.approx(share)
    assert found.metrics["carry_over_no_context"] == found.metrics["carry_over"]


def test_passes_are_no_more_than_are_needed():
    blind = dataclasses.replace(SHOOT, context=False)
    assert plan_passes(SHOOT, 2) == {
        "own": SHOOT,
        "given": dataclasses.replace(SHOOT, given=2),
        "no_context": dataclasses.replace(SHOOT, given=2, context=False),
    }
    assert list(plan_passes(SHOOT, 0)) == ["own", "no_context"]
    assert list(plan_passes(blind, 1)) == ["own", "given"]


def test_every_film_is_told_of_once(scripts):
    told = []
    passes = {"own": SHOOT, "given": dataclasses.replace(SHOOT, given=1)}
    run_passes(true_films, passes, scripts[:2], watch=told.append)
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
def test_a_shot_must_be_left_to_score(scripts, given):
    def bind(shoot):
        raise AssertionError

    message = f"{given} shots are to be given in stories of 2; give 0 to 1"
    with pytest.raises(ValueError, match=message):
        run_passes(bind, {"given": dataclasses.replace(SHOOT, given=given)}, scripts)
