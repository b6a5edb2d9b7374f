"""From a film to what a training step reads: one target shot, with or without its context.

Pure functions of a film and a generator. Captions stay token ids, by context slot (see
rollout/conditioning.py): text encoders learn too, or are frozen and cheap beside what reads them.
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
class SingleShot:
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
        return {
            "target": film.clips[shot],
            **caption_ids(self.tokenize, film.captions[shot : shot + 1]),
        }


@dataclasses.dataclass(frozen=True)
class ShotWithContext:
    """One target shot, drawn evenly, and the context frames that it sees of the shots before it.

    The sample holds

        target          float32 [frame row col chan]
        target_shot     int32, its place in the story; 0 has no context
        context         float32 [slot row col chan], zeros without context
        context_shot    int32 [slot], the shot of each frame; 0 without context
        ids, mask       [slot+1 text_token], each slot's caption and then the target's

    Without context every slot has the target's caption.

    Attributes:
      tokenize: captions to ids.
      budget: context slots.
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
            **caption_ids(self.tokenize, self._slot_captions(film.captions, refs, target)),
        }

    def _slot_captions(
        self, captions: Sequence[str], refs: Sequence[FrameRef], target: int
    ) -> list[str]:
        own = captions[target]
        if self.captions == "target" or not refs:
            return [own] * (self.budget + 1)
        return [*(captions[ref.shot] for ref in refs), own]


@dataclasses.dataclass(frozen=True)
class StoryCaptions:
    """The captions of a story: all that a film is made from which has no true history.

    The sample holds

        ids, mask       [shot text_token]

    Attributes:
      tokenize: captions to ids.
      shots: first shots of each film that are taken.
    """

    tokenize: Tokenize
    shots: int

    def __call__(self, film: LatentFilm, rng: np.random.Generator) -> Sample:
        """Take the captions; nothing is drawn.

        Raises:
          ValueError: a film of fewer shots.
        """
        del rng
        if len(film.captions) < self.shots:
            raise ValueError(
                f"A film of {len(film.captions)} shots and stories of {self.shots} are asked for; "
                "encode longer films, or ask for fewer shots."
            )
        return caption_ids(self.tokenize, film.captions[: self.shots])


def caption_ids(tokenize: Tokenize, captions: Sequence[str]) -> Sample:
    """Batch fields of captions."""
    # Context slots repeat captions: each is tokenized once.
    unique = list(dict.fromkeys(captions))
    places = [unique.index(caption) for caption in captions]
    ids, mask = tokenize(unique)
    return {"ids": ids[places], "mask": mask[places]}


def _shots(refs: Sequence[FrameRef], budget: int) -> np.ndarray:
    return np.asarray([ref.shot for ref in refs] or [0] * budget, np.int32)
