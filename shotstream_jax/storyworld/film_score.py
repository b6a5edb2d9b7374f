"""How well a film keeps to its story, and to itself.

Named attributes are compared with the captions' truth. Hidden ones and the character's identity are
compared with the earlier shots of the same film, because no caption tells them: whatever the first
shot chose, later shots must keep. A model that always makes the same choice keeps it without any
memory; give it true first shots (`given`), which alone are then compared with, and chance is one
over the number of values:

    the film             white (given)   pink   pink     pink
    kept                                 no     no       no
    without a given      white           pink   pink     pink
    kept                                 no     either   yes
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from shotstream_jax.storyworld.attributes import CHARACTER_NAMED, HIDDEN, NAMED
from shotstream_jax.storyworld.oracle import UNSEEN, Observation, observe_shot
from shotstream_jax.storyworld.segmentation import Footage, coarse, to_rgb
from shotstream_jax.storyworld.spec import StorySpec, true_value

IDENTITY = (*CHARACTER_NAMED, "trim")
"""What makes a character the same one."""

# Sum over channels by which a cell changes at a cut, and not by noise of 0.06.
_CHANGED = 36.0

# Between what the nearest walk sets in motion (0.71) and what the tamest cut does (0.9).
_CUT_COLUMNS = 0.78


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmScore:
    """One film against its story; the shots that were given to the model are not scored.

    Attributes:
      observations: what every shot shows, given ones included.
      prompt: for every named attribute, whether each scored shot shows what was asked.
      carry_over: for every hidden attribute, whether each scored shot after the first one shows
        what the given shots showed, or, with none given, all shots before it.
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

    def summary(self) -> dict[str, float]:
        """Means over shots, one number a metric; metrics of later shots need a later shot."""
        parts: dict[str, Sequence[float]] = {
            **{f"prompt/{name}": hits for name, hits in self.prompt.items()},
            **{f"carry_over/{name}": hits for name, hits in self.carry_over.items()},
            "identity": self.identity,
            "motion": self.motion,
            "cuts": (self.cuts,),
            "flicker": self.flicker,
            "drift": (self.drift,),
        }
        return {name: float(np.mean(part)) for name, part in parts.items() if len(part)}


def score_film(film: Sequence[Footage], spec: StorySpec, *, given: int = 0) -> FilmScore:
    """Score the shots of a film; the first `given` ones were context, and only serve as reference.

    Raises:
      ValueError: another number of shots than the story has, or no shot left to score.
    """
    if len(film) != len(spec.shots) or not 0 <= given < len(film):
        raise ValueError(
            f"A film of {len(film)} shots, {given} of them given, for a story of "
            f"{len(spec.shots)}; pass every shot of the story and leave one to score."
        )
    seen = tuple(observe_shot(shot) for shot in film)
    scored = range(given, len(seen))
    later = range(max(given, 1), len(seen))
    prompt = {
        name: tuple(seen[k].values[name] == true_value(spec, k, name) for k in scored)
        for name in NAMED
    }
    same = {
        name: tuple(_agrees(seen[k], seen[:given] or seen[:k], name) for k in later)
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
    """Whether a shot shows what earlier shots agree on, each vote as strong as its confidence."""
    votes: dict[str, float] = {}
    for past in earlier:
        votes[past.values[name]] = votes.get(past.values[name], 0.0) + past.confidence[name]
    return shot.values[name] != UNSEEN and shot.values[name] == max(votes, key=votes.__getitem__)


def _slope(values: Sequence[float]) -> float:
    """Least-squares growth from one value to the next; 0 for a single one."""
    step = np.arange(len(values)) - (len(values) - 1) / 2
    return float(step @ np.asarray(values) / max(step @ step, 1e-9))
