"""Scores of a film: agreement with its story's captions, and with its own earlier shots.

Named attributes are compared with the spec. Hidden ones and the character's identity are compared
with the earlier shots of the same film, because no caption names them: later shots must keep what
the first one chose. A model that always makes the same choice keeps it without any memory; start
its films from true shots (`reference_shots`), which alone are then compared with, and a guess is
right once in as many times as there are values:

    trim of the film      white (reference)   pink   pink     pink
    kept                                      no     no       no
    without a reference   white               pink   pink     pink
    kept                                      no     either   yes
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from shotstream_jax.storyworld.attributes import CHARACTER_NAMED, HIDDEN, NAMED
from shotstream_jax.storyworld.oracle import UNSEEN, Observation, observe_shot
from shotstream_jax.storyworld.segmentation import Footage, coarse, to_rgb
from shotstream_jax.storyworld.spec import StorySpec, true_value

IDENTITY = (*CHARACTER_NAMED, "trim")
"""Attributes that a character keeps through a film."""

# Sum over channels by which a cell changes at a cut. Noise of 0.06 moves the mean of a cell's 16
# pixels by 255 x 0.06 / 4 = 4 a channel; three channels of two frames stay well below 36.
_CHANGED = 36.0

# Between what the nearest walk sets in motion (0.71 of the columns) and the mildest cut does (0.9).
_CUT_COLUMNS = 0.78


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmScore:
    """One film against its story; reference shots, which the model did not make, are not scored.

    Attributes:
      observations: what every shot shows, reference shots included.
      prompt: for every named attribute, whether each scored shot shows what was asked.
      carry_over: for every hidden attribute, whether each scored shot after the first one shows
        what the reference shots showed, or, without any, all shots before it.
      identity: whether each scored shot after the first one shows the character of those shots, in
        shape, colour, pattern and trim.
      motion: how far each scored shot carries out the named action, 1 is as in a true film.
      cuts: cuts that are due and seen, over cuts that are due or seen.
      flicker: change of the set inside each scored shot, as a share of the RGB range.
      drift: growth, from shot to shot, of the set's distance from a true one, in the same share.
    """

    observations: tuple[Observation, ...]
    prompt: Mapping[str, tuple[bool, ...]]
    carry_over: Mapping[str, tuple[bool, ...]]
    identity: tuple[bool, ...]
    motion: tuple[float, ...]
    cuts: float
    flicker: tuple[float, ...]
    drift: float


def score_film(film: Sequence[Footage], spec: StorySpec, *, reference_shots: int = 0) -> FilmScore:
    """Score the shots of a film after the first `reference_shots`, which were the model's context.

    Raises:
      ValueError: another number of shots than the story has, or no shot left to score.
    """
    if len(film) != len(spec.shots) or not 0 <= reference_shots < len(film):
        raise ValueError(
            f"A film of {len(film)} shots, {reference_shots} of them reference shots, for a story "
            f"of {len(spec.shots)}; pass every shot of the story and leave one to score."
        )
    seen = tuple(observe_shot(shot) for shot in film)
    scored = range(reference_shots, len(seen))
    # A film's own first shot has nothing to be compared with.
    later = range(max(reference_shots, 1), len(seen))
    prompt = {
        name: tuple(seen[k].values[name] == true_value(spec, k, name) for k in scored)
        for name in NAMED
    }
    same = {
        name: tuple(_agrees(seen[k], seen[:reference_shots] or seen[:k], name) for k in later)
        for name in (*IDENTITY, *HIDDEN)
    }
    return FilmScore(
        observations=seen,
        prompt=prompt,
        carry_over={name: same[name] for name in HIDDEN},
        identity=tuple(all(hits) for hits in zip(*(same[name] for name in IDENTITY), strict=True)),
        motion=tuple(seen[k].evidence[spec.shots[k].action] for k in scored),
        cuts=cut_accuracy(film),
        flicker=tuple(seen[k].flicker for k in scored),
        drift=_slope([shot.deviation for shot in seen]),
    )


def find_cuts(footage: Footage) -> tuple[int, ...]:
    """Video frames that begin a new shot: nearly every column of the frame changes at once.

    A moving character changes its own columns only; a new set or framing moves the horizon.
    """
    cells = coarse(to_rgb(footage))
    changed = np.abs(np.diff(cells, axis=0)).sum(-1) > _CHANGED
    columns = changed.any(axis=1).mean(-1)
    return tuple(int(frame) + 1 for frame in np.flatnonzero(columns > _CUT_COLUMNS))


def cut_accuracy(film: Sequence[Footage]) -> float:
    """Cuts that are due and seen, over cuts that are due or seen; 1 where there are none."""
    due = set(np.cumsum([len(shot) for shot in film])[:-1].tolist())
    seen = set(find_cuts(np.concatenate(film)))
    return len(due & seen) / len(due | seen) if due | seen else 1.0


def _agrees(shot: Observation, earlier: Sequence[Observation], name: str) -> bool:
    """Whether a shot shows what earlier shots agree on, each vote weighted by its confidence."""
    votes: dict[str, float] = {}
    for past in earlier:
        votes[past.values[name]] = votes.get(past.values[name], 0.0) + past.confidence[name]
    return shot.values[name] != UNSEEN and shot.values[name] == max(votes, key=votes.__getitem__)


def _slope(values: Sequence[float]) -> float:
    """Least-squares growth from one value to the next; 0 for a single one."""
    # Centred steps, so that the mean of the values drops out; a single one divides 0 by the floor.
    step = np.arange(len(values)) - (len(values) - 1) / 2
    return float(step @ np.asarray(values) / max(step @ step, 1e-9))
