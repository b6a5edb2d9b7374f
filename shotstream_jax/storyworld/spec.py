"""Ground truth of a film: `StorySpec` and its `ShotSpec`s, drawn from a seed.

A spec holds everything that is visible; a caption (captions.py) only what is named. Randomness
is keyed by content: split, seed, index and number of shots make the generator, so any story can be
drawn alone, in any order, on any host.
"""

import dataclasses
from typing import Literal

import numpy as np

from shotstream_jax.storyworld.attributes import (
    ACTIONS,
    CHARACTER_NAMED,
    FRAMINGS,
    HIDDEN,
    SCENES,
    SHOT_NAMED,
    check_value,
)

Split = Literal["train", "validation", "test"]
# The position seeds the generator: append, never reorder.
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

MAX_SHOTS = 16
"""Longest story; the captions' vocabulary holds a label for each shot."""

# With another 0.6 / 4 by chance, 55 % of cuts stay in the scene: cuts that only the framing shows
# are as common as cuts to another place.
_STAY_IN_SCENE = 0.4


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShotSpec:
    """What one shot shows.

    Attributes:
      scene: place, with its ground and its landmark.
      action: what the character does.
      framing: how near the camera is.
      offset: where the character stands, in [-1, 1] of the room that its action leaves.
      scale: size of the character relative to the framing's, near 1.
      phase: where in its cycle the action begins, in [0, 1).
      wording: key of the caption's wording.
    """

    scene: str
    action: str
    framing: str
    offset: float = 0.0
    scale: float = 1.0
    phase: float = 0.0
    wording: int = 0

    def __post_init__(self) -> None:
        """Raises: ValueError: a value that StoryWorld does not know."""
        for attribute in SHOT_NAMED:
            check_value(attribute, getattr(self, attribute))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StorySpec:
    """What all shots of a film share, and the shots.

    Attributes:
      shape: outline of the character's body.
      colour: colour of the body.
      pattern: where the body is painted in its second colour.
      trim: that second colour (hidden).
      sky: tint of the sky in every scene (hidden).
      shots: the shots, in order.
      wording: key of the global caption's wording.
    """

    shape: str
    colour: str
    pattern: str
    trim: str
    sky: str
    shots: tuple[ShotSpec, ...]
    wording: int = 0

    def __post_init__(self) -> None:
        """Raises: ValueError: a value that StoryWorld does not know, or no or too many shots."""
        for attribute in (*CHARACTER_NAMED, *HIDDEN):
            check_value(attribute, getattr(self, attribute))
        if not 1 <= len(self.shots) <= MAX_SHOTS:
            raise ValueError(f"A story has 1 to {MAX_SHOTS} shots, not {len(self.shots)}.")


def true_value(spec: StorySpec, shot: int, attribute: str) -> str:
    """What one shot of a story shows, for any named or hidden attribute."""
    return getattr(spec.shots[shot] if attribute in SHOT_NAMED else spec, attribute)


def sample_story(seed: int, shots: int, split: Split = "train", *, index: int = 0) -> StorySpec:
    """Draw story number `index` of a split; neighbouring shots never share scene and framing.

    Raises:
      ValueError: a split that does not exist, or a number of shots that no story has.
    """
    if split not in SPLITS:
        raise ValueError(f"Split {split!r} does not exist; choose one of {SPLITS}.")
    # The order of draws below is part of the dataset: a draw added in between changes all later
    # ones.
    rng = np.random.default_rng([SPLITS.index(split), seed, index, shots])
    values = {name: _choose(rng, values) for name, values in {**CHARACTER_NAMED, **HIDDEN}.items()}
    drawn: list[ShotSpec] = []
    for _ in range(shots):
        drawn.append(_sample_shot(rng, drawn[-1] if drawn else None))
    return StorySpec(shots=tuple(drawn), wording=int(rng.integers(2**31)), **values)


def _sample_shot(rng: np.random.Generator, previous: ShotSpec | None) -> ShotSpec:
    scene, framing = _choose(rng, SCENES), _choose(rng, FRAMINGS)
    if previous is not None:
        if rng.random() < _STAY_IN_SCENE:
            scene = previous.scene
        # Same scene and same framing would be a cut that shows nowhere.
        if scene == previous.scene:
            framing = _choose(rng, tuple(f for f in FRAMINGS if f != previous.framing))
    return ShotSpec(
        scene=scene,
        action=_choose(rng, ACTIONS),
        framing=framing,
        offset=float(rng.uniform(-1, 1)),
        # Framings differ by 28 %: a body of any scale is still nearest to its own framing's size.
        scale=float(rng.uniform(0.97, 1.03)),
        phase=float(rng.random()),
        wording=int(rng.integers(2**31)),
    )


def _choose(rng: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[int(rng.integers(len(values)))]
