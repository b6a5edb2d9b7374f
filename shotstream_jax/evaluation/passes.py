"""Filming and scoring a set of stories: once for its own sake, and again to see what is remembered.

    own          the model's own films                     prompts, cuts, identity, motion, ...
    given        after true first shots                    carry-over
    no_context   the same, each shot without a context     carry-over of a model without a memory

A model that always makes the same choice keeps it without any memory: in its own films, hidden
attributes may stay the same for no good reason. What it was given, it can only have remembered.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from shotstream_jax.evaluation.films import Film, MakeFilms, Script, Shoot
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
class Progress:
    """A film was scored.

    Attributes:
      part: of the evaluation: a pass, or the oracle on true films.
      story: number of the film's script.
      film: the film, where it is a model's.
      done: films scored so far, in all parts.
      total: films of all parts.
    """

    part: str
    story: int
    film: Film | None
    done: int
    total: int


Watch = Callable[[Progress], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What there is to say of a model.

    Attributes:
      metrics: by name, see `tally_films` and `tally_passes`.
      frames: video frames that were filmed, in all passes.
      seconds: that filming took, compilation included and scoring not.
    """

    metrics: Mapping[str, Metric]
    frames: int
    seconds: float


def plan_passes(shoot: Shoot, given: int) -> dict[PassName, Shoot]:
    """The passes over a set of stories; those that would repeat another one are left out.

    Args:
      shoot: of the model's own films.
      given: true first shots, after which carry-over is measured; 0 measures it on own films.
    """
    passes: dict[PassName, Shoot] = {"own": shoot}
    if given:
        passes["given"] = dataclasses.replace(shoot, given=given)
    if shoot.context:
        passes["no_context"] = dataclasses.replace(shoot, given=given, context=False)
    return passes


def run_passes(
    bind: Callable[[Shoot], MakeFilms],
    passes: Mapping[PassName, Shoot],
    scripts: Sequence[Script],
    *,
    watch: Watch = lambda progress: None,
) -> Evaluation:
    """Film every script in every pass, score the films, and the oracle with them.

    Raises:
      ValueError: no shot left to score, or sizes that the networks cannot film.
    """
    fewest = min(len(script.spec.shots) for script in scripts)
    for shoot in passes.values():
        if not 0 <= shoot.given < fewest:
            raise ValueError(
                f"{shoot.given} shots are to be given in stories of {fewest}; "
                f"give 0 to {fewest - 1}, so that one is left to score."
            )
    # All are bound before any work, so that they refuse before any work.
    makers = {name: bind(shoot) for name, shoot in passes.items()}
    clock = _Clock(watch, total=(1 + len(passes)) * len(scripts))
    accuracies = list(_try_oracle(passes["own"], scripts, clock))
    scores: dict[PassName, list[FilmScore]] = {
        name: list(_score(name, clock.timed(makers[name](scripts), shoot), scripts, shoot, clock))
        for name, shoot in passes.items()
    }
    tallies = {
        **tally_passes(scores),
        **tally_oracle(accuracies, [len(script.spec.shots) for script in scripts]),
    }
    chance = carry_over_chance()
    return Evaluation(
        metrics={
            **with_intervals(tallies),
            "carry_over_chance": Metric(value=chance, low=chance, high=chance),
        },
        frames=clock.frames,
        seconds=clock.seconds,
    )


class _Clock:
    """Counts films, and the time that filming takes."""

    def __init__(self, watch: Watch, total: int) -> None:
        self._watch, self._total, self._done = watch, total, 0
        self.frames, self.seconds = 0, 0.0

    def timed(self, films: Iterator[Film], shoot: Shoot) -> Iterator[Film]:
        """The same films."""
        while True:
            began = time.perf_counter()
            film = next(films, None)
            self.seconds += time.perf_counter() - began
            if film is None:
                return
            self.frames += sum(len(shot) for shot in film[shoot.given :])
            yield film

    def tick(self, part: str, story: int, film: Film | None = None) -> None:
        """Tell that a film was scored."""
        self._done += 1
        self._watch(Progress(part=part, story=story, film=film, done=self._done, total=self._total))


def _try_oracle(
    shoot: Shoot, scripts: Sequence[Script], clock: _Clock
) -> Iterator[dict[str, float]]:
    """How the oracle fares on the true film of each story alone."""
    for story, script in enumerate(scripts):
        yield oracle_accuracy([script.spec], picture=shoot.picture, video_frames=shoot.video_frames)
        clock.tick("oracle", story)


def _score(
    name: PassName,
    films: Iterator[Film],
    scripts: Sequence[Script],
    shoot: Shoot,
    clock: _Clock,
) -> Iterator[FilmScore]:
    for story, (film, script) in enumerate(zip(films, scripts, strict=True)):
        yield score_film(film, script.spec, reference_shots=shoot.given)
        clock.tick(name, story, film)
