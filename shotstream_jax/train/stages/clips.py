"""Clips to train the autoencoder on: excerpts of shots, short ones first and longer ones later."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from shotstream_jax.data.loader import LoaderConfig, make_loader
from shotstream_jax.data.sources import Film, FilmSource
from shotstream_jax.data.transforms import Sample


@dataclasses.dataclass(frozen=True)
class RandomClip:
    """Consecutive frames of a shot, drawn evenly: `pixels`, uint8 [video_frame height width 3].

    Attributes:
      video_frames: how many.
    """

    video_frames: int

    def __call__(self, film: Film, rng: np.random.Generator) -> Sample:
        """Draw a shot and where in it the clip begins, and read those frames.

        Raises:
          ValueError: a shot that is shorter than the clip.
        """
        shot = int(rng.integers(len(film.shot_lengths)))
        spare = film.shot_lengths[shot] - self.video_frames
        if spare < 0:
            raise ValueError(
                f"A shot of {film.shot_lengths[shot]} video frames holds no clip of "
                f"{self.video_frames}; ask for shorter clips or longer shots."
            )
        first = int(rng.integers(spare + 1))
        return {"pixels": film.frames(shot, range(first, first + self.video_frames))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a run in which all clips have one length.

    Attributes:
      share: of the run's steps.
      video_frames: length of a clip; 1 is a picture, and takes the cheap two-dimensional way.
      batch: clips of a batch.
    """

    share: float
    video_frames: int
    batch: int


def phase_ends(phases: Sequence[Phase], steps: int) -> tuple[int, ...]:
    """The step at which each phase ends.

    Raises:
      ValueError: shares that do not add up to 1.
    """
    reached = list(itertools.accumulate(phase.share for phase in phases))
    if not phases or min(p.share for p in phases) < 0 or abs(reached[-1] - 1) > 1e-6:
        shares = ", ".join(f"{phase.share:g}" for phase in phases)
        raise ValueError(f"The phases have shares {shares}; make them add up to 1.")
    # Of the cumulated shares, so that rounding never moves the last phase's end.
    return tuple(round(share * steps) for share in reached)


class PhasedClips:
    """Batches of clips without end; the last phase goes on when all are over."""

    def __init__(
        self, source: FilmSource, phases: Sequence[Phase], steps: int, seed: int = 0
    ) -> None:
        self._source, self._phases, self._seed = source, phases, seed
        self._ends = phase_ends(phases, steps)
        self._taken, self._phase = 0, -1
        self._clips: Any = None

    def __next__(self) -> Sample:
        """The next batch."""
        self._enter(self._phase_of(self._taken))
        self._taken += 1
        return next(self._clips)

    def get_state(self) -> dict[str, Any]:
        """The place: batches taken, and the loader's own place in the phase that it is of."""
        self._enter(max(self._phase, 0))
        return {"taken": self._taken, "phase": self._phase, "loader": self._clips.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a place."""
        self._taken = state["taken"]
        self._enter(state["phase"])
        self._clips.set_state(state["loader"])

    def _phase_of(self, batch: int) -> int:
        # Past the last end, the last phase: a run that is given more steps goes on with it.
        return min(sum(batch >= end for end in self._ends), len(self._ends) - 1)

    def _enter(self, index: int) -> None:
        """Open the loader of a phase, at its beginning, unless it is open."""
        if index == self._phase:
            return
        phase = self._phases[index]
        # A seed for each phase, or its first epoch would begin with the stories of the phase
        # before; a thousand apart, so that neighbouring seeds of runs do not meet.
        config = LoaderConfig(batch=phase.batch, seed=self._seed + 1000 * index)
        loader = make_loader(self._source, RandomClip(phase.video_frames), config)
        self._clips, self._phase = iter(loader), index
