"""From a film to what a training step reads: whole films, or one target shot with its context.

Pure functions of a film and a generator. Pixels stay uint8 in [0, 255] and captions stay ids or
strings: both are small that way, and devices do the rest.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from shotstream_jax.data.sources import Film
from shotstream_jax.story import CONTEXT_BUDGET, ContextPolicy, FrameRef, context_frames

Sample = Mapping[str, np.ndarray]
Tokenize = Callable[[Sequence[str]], np.ndarray]
"""Captions to rows of ids of one length."""


@runtime_checkable
class Transform(Protocol):
    """Makes a sample of arrays of one film."""

    def __call__(self, film: Film, rng: np.random.Generator) -> Sample:
        """Draw a sample."""
        ...


def keep_strings(captions: Sequence[str]) -> np.ndarray:
    """Captions as an array of strings, for encoders that tokenize themselves."""
    return np.asarray(captions, np.str_)


@dataclasses.dataclass(frozen=True)
class WholeFilm:
    """The whole film, for self-forcing over a story and for evaluation.

    The sample holds

        pixels      uint8 [shot video_frame height width 3]
        captions    as `tokenize` gives them, one row a shot

    Attributes:
      tokenize: captions to rows.
    """

    tokenize: Tokenize = keep_strings

    def __call__(self, film: Film, rng: np.random.Generator) -> Sample:
        """Take everything; nothing is drawn."""
        del rng
        shots = range(len(film.captions))
        pixels = np.stack([film.frames(shot) for shot in shots])
        return {"pixels": pixels, "captions": self.tokenize(film.captions)}


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """One target shot, drawn evenly, and the context frames that it sees of the shots before it.

    The sample holds

        target          uint8 [video_frame height width 3]
        target_shot     int32, its place in the story; 0 has no context
        context         uint8 [frame height width 3], black without context
        context_shot    int32 [frame], the shot of each context frame; 0 without context
        captions        as `tokenize` gives them, one row a shot

    Attributes:
      tokenize: captions to rows.
      budget: context frames.
      policy: which shots to remember when there are more of them than `budget`.
    """

    tokenize: Tokenize = keep_strings
    budget: int = CONTEXT_BUDGET
    policy: ContextPolicy = "anchor"

    def __call__(self, film: Film, rng: np.random.Generator) -> Sample:
        """Draw a target and read its frames and those of its context, no others."""
        target = int(rng.integers(len(film.captions)))
        refs = context_frames(film.shot_lengths[:target], self.budget, self.policy)
        pixels = film.frames(target)
        context = np.zeros((self.budget, *pixels.shape[1:]), np.uint8)
        for shot in sorted({ref.shot for ref in refs}):
            rows = [row for row, ref in enumerate(refs) if ref.shot == shot]
            context[rows] = film.frames(shot, [refs[row].frame for row in rows])
        return {
            "target": pixels,
            "target_shot": np.asarray(target, np.int32),
            "context": context,
            "context_shot": _shots(refs, self.budget),
            "captions": self.tokenize(film.captions),
        }


def _shots(refs: Sequence[FrameRef], budget: int) -> np.ndarray:
    return np.asarray([ref.shot for ref in refs] or [0] * budget, np.int32)
