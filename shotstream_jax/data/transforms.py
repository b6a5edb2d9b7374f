"""From a film to what a training step reads: one target shot, with or without its context.

Pure functions of a film and a generator. Captions stay ids: text encoders learn too, or are frozen
and cheap beside what reads them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from shotstream_jax.data.latent_films import LatentFilm
from shotstream_jax.story import (
    CONTEXT_BUDGET,
    ContextCaptions,
    ContextPolicy,
    FrameRef,
    context_frames,
)

Sample = Mapping[str, np.ndarray]
Tokenize = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]
"""Captions to ids and a mask of those that are not padding, `[caption text_token]`."""

Transform = Callable[[Any, np.random.Generator], Sample]
"""Draws a sample of arrays of one film."""


@dataclasses.dataclass(frozen=True)
class OneShot:
    """One shot, drawn evenly, and its own caption.

    The sample holds

        target          float32 [frame row col chan]
        ids, mask       [1 text_token]

    Attributes:
      tokenize: captions to ids.
    """

    tokenize: Tokenize

    def __call__(self, film: LatentFilm, rng: np.random.Generator) -> Sample:
        """Draw a shot."""
        shot = int(rng.integers(len(film.captions)))
        return {"target": film.clips[shot], **_read(self.tokenize, film.captions[shot : shot + 1])}


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """One target shot, drawn evenly, and the context frames that it sees of the shots before it.

    The sample holds

        target          float32 [frame row col chan]
        target_shot     int32, its place in the story; 0 has no context
        context         float32 [context_frame row col chan], zeros without context
        context_shot    int32 [context_frame], the shot of each; 0 without context
        ids, mask       [shot text_token]

    Attributes:
      tokenize: captions to ids.
      budget: context frames.
      policy: which frames of earlier shots are seen.
      captions: whose caption they read.
    """

    tokenize: Tokenize
    budget: int = CONTEXT_BUDGET
    policy: ContextPolicy = "anchor"
    captions: ContextCaptions = "own"

    def __call__(self, film: LatentFilm, rng: np.random.Generator) -> Sample:
        """Draw a target."""
        target = int(rng.integers(len(film.captions)))
        refs = context_frames(film.shot_lengths[:target], self.budget, self.policy)
        clip = film.clips[target]
        context = np.zeros((self.budget, *clip.shape[1:]), clip.dtype)
        return {
            "target": clip,
            "target_shot": np.asarray(target, np.int32),
            "context": film.context(refs) if refs else context,
            "context_shot": _shots(refs, self.budget),
            **_read(self.tokenize, self._told(film.captions, target)),
        }

    def _told(self, captions: Sequence[str], target: int) -> Sequence[str]:
        return captions if self.captions == "own" else [captions[target]] * len(captions)


@dataclasses.dataclass(frozen=True)
class Captions:
    """The captions of a whole film: all that a film is made from which has no true history.

    The sample holds

        ids, mask       [shot text_token]

    Attributes:
      tokenize: captions to ids.
    """

    tokenize: Tokenize

    def __call__(self, film: LatentFilm, rng: np.random.Generator) -> Sample:
        """Take all captions; nothing is drawn."""
        del rng
        return _read(self.tokenize, film.captions)


def _read(tokenize: Tokenize, captions: Sequence[str]) -> Sample:
    ids, mask = tokenize(captions)
    return {"ids": ids, "mask": mask}


def _shots(refs: Sequence[FrameRef], budget: int) -> np.ndarray:
    return np.asarray([ref.shot for ref in refs] or [0] * budget, np.int32)
