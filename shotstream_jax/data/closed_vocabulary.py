"""Words outside a closed vocabulary: a small model reads them as bytes that it never learned.

The tokenizer of the released weights covers all text, and so has no such words. That of the
miniature has one id a known word and one a byte of anything else (`word_tokenizer`): text that it
does not know is read all the same, and films something else.
"""

import dataclasses
import re

from shotstream_jax.data.tokenizer import Tokenizer, clean_text
from shotstream_jax.story import Story, full_captions

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPECIAL = re.compile(r"<[^>]*>")
_LABEL = re.compile(r"shot\d+")
_WORD = re.compile(r"\w+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnknownWords:
    """What a model does not know in the caption of one shot.

    Attributes:
      shot: place of the shot, from 0.
      words: in the order of the caption, each once, in lower case.
      label: the shot's label, if the model saw no shot with this number in training.
    """

    shot: int
    words: tuple[str, ...]
    label: str | None = None

    @property
    def reason(self) -> str:
        """What is not known, in words."""
        parts = []
        if self.words:
            parts.append(f"the model does not know {', '.join(self.words)}")
        if self.label:
            parts.append(f"it never saw a shot as late as this one ({self.label})")
        return "; ".join(parts)

    def __str__(self) -> str:
        return f"Shot {self.shot + 1}: {self.reason}."


def known_words(tokenizer: Tokenizer) -> tuple[str, ...] | None:
    """The words of a closed vocabulary, sorted, shot labels not among them; `None` if it is open.

    A vocabulary is closed where everything else than whole words is bytes.
    """
    words = _closed(tokenizer)
    return None if words is None else tuple(sorted(w for w in words if not _LABEL.fullmatch(w)))


def unknown_words(tokenizer: Tokenizer, story: Story) -> tuple[UnknownWords, ...]:
    """What a tokenizer with a closed vocabulary does not know in a story, shot by shot.

    Returns:
      Nothing for shots that are known whole, and for a tokenizer that covers all text.
    """
    known = _closed(tokenizer)
    if known is None:
        return ()
    found = (_of_caption(known, k, caption) for k, caption in enumerate(full_captions(story)))
    return tuple(shot for shot in found if shot.words or shot.label)


def _of_caption(known: frozenset[str], shot: int, caption: str) -> UnknownWords:
    words = dict.fromkeys(_WORD.findall(clean_text(caption).lower()))
    label = f"shot{shot}"
    # A global caption without a full stop clings to the label ("starshot0"): that is a word too.
    unknown = tuple(word for word in words if word not in known and word != label)
    has_labels = any(_LABEL.fullmatch(word) for word in known)
    return UnknownWords(
        shot=shot, words=unknown, label=label if has_labels and label not in known else None
    )


def _closed(tokenizer: Tokenizer) -> frozenset[str] | None:
    pieces = tokenizer.backend.get_vocab(with_added_tokens=False)
    if not all(_BYTE.fullmatch(piece) or _SPECIAL.fullmatch(piece) for piece in pieces):
        return None
    added = tokenizer.backend.get_added_tokens_decoder().values()
    words = {str(token.content).lower() for token in added if _WORD.fullmatch(token.content)}
    return frozenset(words)
