"""Sums and counts by story make the means; stories drawn anew make the intervals."""

import numpy as np
import pytest

from shotstream_jax.evaluation.scores import (
    Tally,
    carry_over_chance,
    tally_films,
    tally_oracle,
    tally_passes,
    with_intervals,
)
from shotstream_jax.storyworld.attributes import ATTRIBUTES, HIDDEN, NAMED
from shotstream_jax.storyworld.film_score import FilmScore
from shotstream_jax.storyworld.oracle import observe_shot

BLANK = observe_shot(np.zeros((1, 32, 48, 3), np.uint8))


def score(prompts=(True, True, True), kept=(True, True), **others) -> FilmScore:
    """A film in which every attribute has the same hits; one shot more is seen than is kept."""
    values = {
        "observations": (BLANK,) * (len(kept) + 1),
        "prompt": dict.fromkeys(NAMED, prompts),
        "carry_over": dict.fromkeys(HIDDEN, kept),
        "identity": kept,
        "motion": (0.5,) * len(prompts),
        "cuts": 1.0,
        "flicker": (0.1,) * len(prompts),
        "drift": 0.0,
    }
    return FilmScore(**{**values, **others})


def tally(*stories) -> Tally:
    sums = np.asarray([sum(values) for values in stories], float)
    return Tally(sums=sums, counts=np.asarray([len(values) for values in stories]))


def interval(tally, **how):
    return with_intervals({"metric": tally}, **how)["metric"]


class TestIntervals:
    def test_of_a_share_are_those_of_the_normal_approximation(self):
        stories, share = 400, 0.3
        hits = [[float(k < share * stories)] for k in range(stories)]
        metric = interval(tally(*hits), resamples=4000)
        assert metric.value == pytest.approx(share)
        deviation = np.sqrt(share * (1 - share) / stories)
        assert metric.low == pytest.approx(share - 1.96 * deviation, abs=0.1 * deviation)
        assert metric.high == pytest.approx(share + 1.96 * deviation, abs=0.1 * deviation)

    def test_shots_of_one_story_count_for_one(self):
        """A story whose ten shots agree says no more than a story of one shot."""
        single = [[float(k % 2)] for k in range(60)]
        single_interval = interval(tally(*single))
        tenfold = interval(tally(*[values * 10 for values in single]))
        assert tenfold == single_interval
        assert tenfold.high - tenfold.low > 0.2

    def test_a_mean_is_over_shots_not_over_stories(self):
        assert interval(tally([1.0] * 9, [0.0])).value == 0.9

    def test_no_doubt_no_width(self):
        metric = interval(tally([1.0, 1.0], [1.0]))
        assert (metric.low, metric.value, metric.high) == (1, 1, 1)

    def test_stories_without_the_shot_are_not_counted(self):
        metric = interval(tally([], [], [], [1.0], [0.0]))
        assert metric.value == 0.5
        assert (metric.low, metric.high) == (0, 1)

    def test_what_was_never_measured_is_left_out(self):
        assert with_intervals({"metric": tally([], [])}) == {}

    def test_a_seed_repeats_them(self):
        values = tally(*[[float(k)] for k in range(20)])
        assert interval(values) == interval(values)
        assert interval(values) != interval(values, seed=1)


class TestFilms:
    def test_every_hit_counts_once(self):
        prompts = dict.fromkeys(NAMED, (True, True)) | {"shape": (True, False)}
        films = [score(prompt=prompts, kept=(True,)), score()]
        metrics = with_intervals(tally_films(films))
        assert metrics["prompt_accuracy/shape"].value == pytest.approx(4 / 5)
        assert metrics["prompt_accuracy/colour"].value == 1
        shots = 5 * len(NAMED)
        assert metrics["prompt_accuracy"].value == pytest.approx((shots - 1) / shots)
        assert metrics["motion"].value == 0.5
        assert metrics["cut_accuracy"].value == 1

    def test_carry_over_is_told_by_the_number_of_the_shot(self):
        films = [score(kept=(True,)), score(kept=(True, False, False))]
        metrics = with_intervals(tally_films(films))
        by_shot = {
            name: metric.value for name, metric in metrics.items() if "carry_over/shot" in name
        }
        assert by_shot == {
            "carry_over/shot_2": 1,
            "carry_over/shot_3": 0,
            "carry_over/shot_4": 0,
        }
        assert metrics["carry_over"].value == 0.5
        assert metrics["carry_over/trim"].value == 0.5

    def test_given_shots_are_counted_but_not_scored(self):
        """Two given shots and one of the model's: what is kept is kept in the third."""
        film = score(prompts=(True,), kept=(True,), observations=(BLANK,) * 3)
        names = [name for name in tally_films([film]) if "shot" in name]
        assert names == ["carry_over/shot_3"]


class TestPasses:
    def test_carry_over_is_that_after_true_shots(self):
        passes = {
            "own": [score(), score()],
            "given": [score(kept=(True, False), prompts=(False,) * 2)] * 2,
            "no_context": [score(kept=(False, False))] * 2,
        }
        metrics = with_intervals(tally_passes(passes))
        assert metrics["carry_over"].value == 0.5
        assert metrics["carry_over/shot_3"].value == 0
        assert metrics["carry_over_own"].value == 1
        assert metrics["carry_over_no_context"].value == 0
        assert metrics["carry_over_no_context/sky"].value == 0
        assert metrics["prompt_accuracy"].value == 1
        assert metrics["identity"].value == 1

    def test_without_given_shots_it_is_that_of_own_films(self):
        metrics = with_intervals(tally_passes({"own": [score(kept=(True, False))]}))
        assert metrics["carry_over"].value == 0.5
        assert "carry_over_own" not in metrics
        assert "carry_over_no_context" not in metrics


def test_the_oracle_is_weighed_by_shots():
    sure = {**dict.fromkeys(ATTRIBUTES, 1.0), "cuts": 1.0}
    metrics = with_intervals(tally_oracle([sure, {**sure, "trim": 0.5, "cuts": 0.0}], [6, 2]))
    assert metrics["oracle_accuracy/trim"].value == pytest.approx(7 / 8)
    assert metrics["oracle_accuracy/cuts"].value == 0.5
    assert metrics["oracle_accuracy"].value == pytest.approx(1 - 1 / 8 / len(ATTRIBUTES))


def test_chance_is_one_over_the_number_of_values():
    assert carry_over_chance() == 0.25
