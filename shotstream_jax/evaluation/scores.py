"""From the scores of films to numbers with intervals.

A metric is a mean over shots (or over films, or over attributes of shots) of all stories. It is
kept as a sum and a count for every story, because stories are what is drawn anew for an interval:
shots of one film are not independent of one another. Parts of a metric are named `METRIC/PART`.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from shotstream_jax.storyworld.attributes import ATTRIBUTES, HIDDEN
from shotstream_jax.storyworld.film_score import FilmScore

PassName = Literal["own", "given", "no_context"]
"""The model's own films; films after true first shots; the same, each shot without a context."""

Measured = Sequence[bool] | Sequence[float]
"""What a metric finds in the shots of one film: hits, or amounts."""

# 25 means lie beyond each end of the interval: enough for its third digit.
RESAMPLES = 1000
_TAILS = (2.5, 97.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tally:
    """What each story adds to a metric.

    Attributes:
      sums: of what was measured.
      counts: how often it was.
    """

    sums: Float[np.ndarray, " story"]
    counts: Int[np.ndarray, " story"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A mean, and the 95 % interval of the means that other stories would have given.

    Attributes:
      value: the mean.
      low: lower end of the interval.
      high: upper end of the interval.
    """

    value: float
    low: float
    high: float


def tally_films(scores: Sequence[FilmScore]) -> dict[str, Tally]:
    """Every metric of some films, one story a film.

    prompt_accuracy /shape /colour ...   named attributes that scored shots show as asked
    carry_over /trim /sky                hidden attributes that later shots keep
    carry_over /shot_2 /shot_3 ...       the same by the number of the shot, counted from 1
    cut_accuracy identity motion flicker drift
    """
    measured = [_measurements(score) for score in scores]
    # The film with most shots has every part that another has: parts differ by shot number only.
    names = max(measured, key=len, default={})
    return {name: _tally([parts.get(name, ()) for parts in measured]) for name in names}


def tally_passes(passes: Mapping[PassName, Sequence[FilmScore]]) -> dict[str, Tally]:
    """Every metric of the passes together.

    All but carry-over is of the model's own films. Carry-over is of the films after true first
    shots where there are any, and that of the other passes stands beside it.
    """
    tallies = {name: tally_films(scores) for name, scores in passes.items()}
    own = tallies["own"]
    if "given" in tallies:
        own = {
            **{name: tally for name, tally in own.items() if not _is_part(name, "carry_over")},
            **_renamed(tallies["given"], "carry_over"),
            "carry_over_own": own["carry_over"],
        }
    return {**own, **_renamed(tallies.get("no_context", {}), "carry_over", "carry_over_no_context")}


def tally_oracle(
    accuracies: Sequence[Mapping[str, float]], shots: Sequence[int]
) -> dict[str, Tally]:
    """How the oracle fares on each story's true film, of so many shots: by attribute, and in all.

    Takes what `calibration.oracle_accuracy` says of each story alone.
    """
    weights = np.asarray(shots)
    # A mean over shots times their number is a sum again, and a story has one count a shot; cuts
    # are a score of the film, with one count a story.
    parts = {
        name: Tally(sums=_column(accuracies, name) * weights, counts=weights) for name in ATTRIBUTES
    }
    overall = Tally(
        sums=np.sum([part.sums for part in parts.values()], axis=0), counts=weights * len(parts)
    )
    cuts = Tally(sums=_column(accuracies, "cuts"), counts=np.ones_like(weights))
    return {
        "oracle_accuracy": overall,
        **{f"oracle_accuracy/{name}": part for name, part in {**parts, "cuts": cuts}.items()},
    }


def with_intervals(
    tallies: Mapping[str, Tally], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Metric]:
    """Means and 95 % bootstrap intervals; what was never measured is left out.

    All metrics must be of the same stories, which are drawn anew for all of them together.
    """
    measured = {name: tally for name, tally in tallies.items() if tally.counts.any()}
    stories = len(next(iter(measured.values())).sums) if measured else 1
    # One set of draws for all metrics, from a fixed seed: an evaluation done again prints the same
    # intervals.
    rng = np.random.default_rng(seed)
    # How often each story is drawn: as many draws as stories, with replacement.
    draws = rng.multinomial(stories, np.full(stories, 1 / stories), size=resamples)
    return {name: _estimate(tally, draws) for name, tally in measured.items()}


def carry_over_chance() -> float:
    """Share of hidden attributes that a film keeps by guessing, mean over attributes."""
    # After a reference shot a guess is right once in as many times as there are values; among own
    # films agreement by habit is more frequent, which is why carry-over is not measured there.
    return float(np.mean([1 / len(values) for values in HIDDEN.values()]))


def _measurements(score: FilmScore) -> dict[str, Measured]:
    # Shots count from 1, and the last ones are those that have something to carry over.
    first = len(score.observations) - len(score.identity) + 1
    by_shot = enumerate(zip(*score.carry_over.values(), strict=True), first)
    return {
        "prompt_accuracy": _all(score.prompt),
        **{f"prompt_accuracy/{name}": hits for name, hits in score.prompt.items()},
        "carry_over": _all(score.carry_over),
        **{f"carry_over/{name}": hits for name, hits in score.carry_over.items()},
        **{f"carry_over/shot_{shot}": hits for shot, hits in by_shot},
        "cut_accuracy": (score.cuts,),
        "identity": score.identity,
        "motion": score.motion,
        "flicker": score.flicker,
        "drift": (score.drift,),
    }


def _all(hits: Mapping[str, Sequence[bool]]) -> list[bool]:
    return list(itertools.chain.from_iterable(hits.values()))


def _tally(by_story: Sequence[Measured]) -> Tally:
    return Tally(
        sums=np.asarray([sum(values) for values in by_story], np.float64),
        counts=np.asarray([len(values) for values in by_story]),
    )


def _column(rows: Sequence[Mapping[str, float]], name: str) -> Float[np.ndarray, " story"]:
    return np.asarray([row[name] for row in rows], np.float64)


def _estimate(tally: Tally, draws: Int[np.ndarray, "resample story"]) -> Metric:
    counts = draws @ tally.counts
    # A draw may miss all stories that are long enough for this metric.
    drawn = counts > 0
    low, high = np.percentile((draws @ tally.sums)[drawn] / counts[drawn], _TAILS)
    # Sums over counts, not a mean of the stories' means: every shot weighs alike in long and short
    # stories.
    value = tally.sums.sum() / tally.counts.sum()
    return Metric(value=float(value), low=float(low), high=float(high))


def _is_part(name: str, metric: str) -> bool:
    return name.partition("/")[0] == metric


def _renamed(tallies: Mapping[str, Tally], metric: str, to: str | None = None) -> dict[str, Tally]:
    """One metric with its parts, under another name if one is given."""
    return {
        (to or metric) + name.removeprefix(metric): tally
        for name, tally in tallies.items()
        if _is_part(name, metric)
    }
