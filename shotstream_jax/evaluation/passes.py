"""The passes of an evaluation: every story is filmed and scored in each of them.

    own          the model's own films                     prompts, cuts, identity, motion, ...
    given        after ground-truth first shots            carry-over
    no_context   the same, each shot without a context     carry-over of a model without context

Carry-over is measured after ground-truth shots because a model that always makes the same choice
keeps it without context: in its own films, attributes that no caption names may agree by habit.
Those of a ground-truth shot it can only have taken from the context.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from shotstream_jax.evaluation.films import EvalSetup, EvalStory, ShotVideos, VideoGenerator
from shotstream_jax.evaluation.scores import (
    Metric,
    PassName,
    carry_over_chance,
    tally_oracle,
    tally_passes,
    with_intervals,
)
from shotstream_jax.storyworld.calibration import oracle_accuracy
from shotstream_jax.storyworld.film_score import FilmScore, score_film


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationProgress:
    """A film was scored.

    Attributes:
      part: of the evaluation: a pass, or the oracle on true films.
      story: number of the film's story.
      film: the film, where it is a model's.
      done: films scored so far, in all parts.
      total: films of all parts.
    """

    part: str
    story: int
    film: ShotVideos | None
    done: int
    total: int


EvaluationWatch = Callable[[EvaluationProgress], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
      metrics: by name, see `tally_films` and `tally_passes`.
      frames: video frames that were filmed, in all passes.
      seconds: that filming took, compilation included and scoring not.
    """

    metrics: Mapping[str, Metric]
    frames: int
    seconds: float


def plan_passes(setup: EvalSetup, given: int) -> dict[PassName, EvalSetup]:
    """The passes over a set of stories; those that would repeat another one are left out.

    Args:
      setup: of the model's own films.
      given: ground-truth first shots, after which carry-over is measured; 0 measures it on own
        films.
    """
    passes: dict[PassName, EvalSetup] = {"own": setup}
    if given:
        passes["given"] = dataclasses.replace(setup, reference_shots=given)
    # After the same true shots as "given", so that the two differ in the context alone.
    if setup.context:
        passes["no_context"] = dataclasses.replace(setup, reference_shots=given, context=False)
    return passes


def run_passes(
    bind: Callable[[EvalSetup], VideoGenerator],
    passes: Mapping[PassName, EvalSetup],
    stories: Sequence[EvalStory],
    *,
    watch: EvaluationWatch = lambda progress: None,
) -> Evaluation:
    """Film every story in every pass, score the films, and the oracle with them.

    Raises:
      ValueError: no shot left to score, or sizes that the networks cannot film.
    """
    fewest = min(len(story.spec.shots) for story in stories)
    for setup in passes.values():
        if not 0 <= setup.reference_shots < fewest:
            raise ValueError(
                f"{setup.reference_shots} shots are to be given in stories of {fewest}; "
                f"give 0 to {fewest - 1}, so that one is left to score."
            )
    # All are bound before any work, so that they refuse before any work.
    generators = {name: bind(setup) for name, setup in passes.items()}
    timer = _FilmTimer(watch, total=(1 + len(passes)) * len(stories))
    accuracies = list(_try_oracle(passes["own"], stories, timer))
    scores: dict[PassName, list[FilmScore]] = {
        name: list(
            _score(name, timer.timed(generators[name](stories), setup), stories, setup, timer)
        )
        for name, setup in passes.items()
    }
    tallies = {
        **tally_passes(scores),
        # The oracle that reads films errs on true ones, too: its accuracy stands beside each score.
        **tally_oracle(accuracies, [len(story.spec.shots) for story in stories]),
    }
    chance = carry_over_chance()
    return Evaluation(
        metrics={
            **with_intervals(tallies),
            "carry_over_chance": Metric(value=chance, low=chance, high=chance),
        },
        frames=timer.frames,
        seconds=timer.seconds,
    )


class _FilmTimer:
    """Counts scored films, and measures the time that filming takes."""

    def __init__(self, watch: EvaluationWatch, total: int) -> None:
        self._watch, self._total, self._done = watch, total, 0
        # Not a RateMeter: only the generator's share of the time counts, compilation included.
        self.frames, self.seconds = 0, 0.0

    def timed(self, films: Iterator[ShotVideos], setup: EvalSetup) -> Iterator[ShotVideos]:
        """The same films; the time until each is there is added up, scoring is not."""
        while True:
            began = time.perf_counter()
            film = next(films, None)
            self.seconds += time.perf_counter() - began
            if film is None:
                return
            # Reference shots were not filmed and would flatter the rate.
            self.frames += sum(len(shot) for shot in film[setup.reference_shots :])
            yield film

    def scored(self, part: str, story: int, film: ShotVideos | None = None) -> None:
        """Count a film that was scored."""
        self._done += 1
        self._watch(
            EvaluationProgress(
                part=part, story=story, film=film, done=self._done, total=self._total
            )
        )


def _try_oracle(
    setup: EvalSetup, stories: Sequence[EvalStory], timer: _FilmTimer
) -> Iterator[dict[str, float]]:
    """How the oracle fares on the true film of each story alone."""
    for number, story in enumerate(stories):
        # Story by story, as films are: its interval comes from the same draws of stories.
        yield oracle_accuracy([story.spec], picture=setup.picture, video_frames=setup.video_frames)
        timer.scored("oracle", number)


def _score(
    name: PassName,
    films: Iterator[ShotVideos],
    stories: Sequence[EvalStory],
    setup: EvalSetup,
    timer: _FilmTimer,
) -> Iterator[FilmScore]:
    for number, (film, story) in enumerate(zip(films, stories, strict=True)):
        yield score_film(film, story.spec, reference_shots=setup.reference_shots)
        timer.scored(name, number, film)
