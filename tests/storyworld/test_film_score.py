"""A film is scored against its story and against itself."""

import dataclasses

import numpy as np
import pytest

from shotstream_jax.storyworld.attributes import HIDDEN, NAMED
from shotstream_jax.storyworld.film_score import FilmScore, cut_accuracy, find_cuts, score_film
from shotstream_jax.storyworld.render import render_shot
from shotstream_jax.storyworld.spec import ShotSpec, StorySpec, sample_story

SPEC = StorySpec(
    shape="circle",
    colour="green",
    pattern="striped",
    trim="white",
    sky="azure",
    shots=(
        ShotSpec(scene="meadow", action="jump", framing="medium"),
        ShotSpec(scene="city", action="walk_left", framing="wide"),
        ShotSpec(scene="city", action="spin", framing="close"),
    ),
)


def film(spec: StorySpec) -> list[np.ndarray]:
    return [render_shot(spec, shot) for shot in range(len(spec.shots))]


def means(score: FilmScore) -> dict[str, float]:
    """Means over shots; metrics of later shots need a later shot."""
    parts = {
        **{f"prompt/{name}": hits for name, hits in score.prompt.items()},
        **{f"carry_over/{name}": hits for name, hits in score.carry_over.items()},
        "identity": score.identity,
        "motion": score.motion,
        "cuts": (score.cuts,),
        "flicker": score.flicker,
        "drift": (score.drift,),
    }
    return {name: float(np.mean(part)) for name, part in parts.items() if len(part)}


def test_a_true_film_scores_full_marks():
    summary = means(score_film(film(SPEC), SPEC))
    perfect = [f"prompt/{n}" for n in NAMED] + [f"carry_over/{n}" for n in HIDDEN]
    for metric in (*perfect, "identity", "motion", "cuts"):
        assert summary[metric] == 1, metric
    assert summary["flicker"] == 0
    assert summary["drift"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("hidden", "value"), [("trim", "pink"), ("sky", "indigo")])
def test_a_forgotten_hidden_attribute_is_noticed_and_no_prompt_is_blamed(hidden, value):
    shots = film(SPEC)
    shots[1] = render_shot(dataclasses.replace(SPEC, **{hidden: value}), 1)
    score = score_film(shots, SPEC)
    assert score.carry_over[hidden][0] is False
    other = next(name for name in HIDDEN if name != hidden)
    assert score.carry_over[other] == (True, True)
    assert score.identity[0] is (hidden != "trim")
    assert all(all(hits) for hits in score.prompt.values())


def test_hidden_attributes_are_held_against_the_film_not_against_the_spec():
    other = dataclasses.replace(SPEC, trim="cyan", sky="rose")
    assert means(score_film(film(other), SPEC))["carry_over/trim"] == 1


def test_a_habit_does_not_outvote_reference_shots():
    """The drawing of the module: pink, again and again, after a white reference shot."""
    habit = dataclasses.replace(SPEC, trim="pink", shots=(*SPEC.shots, SPEC.shots[0]))
    shots = film(habit)
    shots[0] = render_shot(SPEC, 0)
    assert score_film(shots, habit, reference_shots=1).carry_over["trim"] == (False,) * 3
    assert score_film(shots, habit).carry_over["trim"][2] is True


@pytest.mark.parametrize(("named", "value"), [("shape", "star"), ("colour", "purple")])
def test_a_changed_character_fails_the_prompt_and_its_identity(named, value):
    shots = film(SPEC)
    shots[2] = render_shot(dataclasses.replace(SPEC, **{named: value}), 2)
    score = score_film(shots, SPEC)
    assert score.prompt[named] == (True, True, False)
    assert score.identity == (True, False)


@pytest.mark.parametrize(
    ("named", "value"), [("scene", "desert"), ("action", "still"), ("framing", "medium")]
)
def test_a_shot_that_ignores_its_caption_fails_that_attribute_only(named, value):
    shots = list(SPEC.shots)
    shots[2] = dataclasses.replace(shots[2], **{named: value})
    score = score_film(film(dataclasses.replace(SPEC, shots=tuple(shots))), SPEC)
    assert score.prompt[named] == (True, True, False)
    for other in NAMED:
        if other != named:
            assert score.prompt[other] == (True, True, True)


def test_a_frozen_walk_shows_no_motion():
    shots = film(SPEC)
    shots[1] = np.repeat(shots[1][:1], 21, axis=0)
    score = score_film(shots, SPEC)
    assert score.motion[1] < 0.1
    assert score.motion[0] == 1


def test_reference_shots_are_compared_with_and_not_scored():
    shots = film(SPEC)
    shots[0] = render_shot(dataclasses.replace(SPEC, shape="star"), 0)
    score = score_film(shots, SPEC, reference_shots=1)
    assert score.prompt["shape"] == (True, True)
    assert score.identity[0] is False
    assert len(score.motion) == 2
    assert len(score.observations) == 3


def test_a_single_shot_has_nothing_to_carry_over():
    spec = dataclasses.replace(SPEC, shots=SPEC.shots[:1])
    summary = means(score_film(film(spec), spec))
    assert "identity" not in summary
    assert not any(name.startswith("carry_over") for name in summary)
    assert summary["cuts"] == 1


def test_a_blank_film_keeps_nothing():
    blank = [np.full((21, 64, 96, 3), 128, np.uint8)] * 3
    summary = means(score_film(blank, SPEC))
    for metric in ("carry_over/trim", "carry_over/sky", "identity", "motion", "prompt/scene"):
        assert summary[metric] == 0, metric


def test_drift_is_growth_from_shot_to_shot():
    shots = [(part * (1 - 0.12 * k) + 15 * k).astype(np.uint8) for k, part in enumerate(film(SPEC))]
    assert score_film(shots, SPEC).drift > 0.005
    assert score_film(shots[::-1], dataclasses.replace(SPEC, shots=SPEC.shots[::-1])).drift < -0.005


@pytest.mark.parametrize("count", [-1, 3])
def test_a_shot_must_be_left_to_score(count):
    with pytest.raises(ValueError, match=f"3 shots, {count} of them reference shots"):
        score_film(film(SPEC), SPEC, reference_shots=count)


def test_every_shot_must_be_there():
    with pytest.raises(ValueError, match="film of 2 shots"):
        score_film(film(SPEC)[:2], SPEC)


def test_cuts_are_found_where_they_are():
    assert find_cuts(np.concatenate(film(SPEC))) == (21, 42)


def test_a_missing_cut_and_a_needless_one_cost_accuracy():
    shots = film(SPEC)
    assert cut_accuracy([shots[0], shots[0][::-1], shots[1]]) == 0.5
    needless = [shots[0], np.concatenate([shots[1][:10], shots[2][10:]])]
    assert cut_accuracy(needless) == 0.5


def test_no_motion_inside_a_shot_is_taken_for_a_cut():
    for index in range(60):
        spec = sample_story(77, 1, "validation", index=index)
        assert find_cuts(render_shot(spec, 0, video_frames=9)) == ()
