"""From a caption to token ids: cleaning, the official tokenizer, and a small one of whole words.

Every tokenizer is a `tokenizer.json`. The end token is appended here, and post-processing of the
file is not run; padding is on the right. Truncation is an error or an explicit option.

Source: public Wan2.1 repository, wan/modules/tokenizers.py, HuggingfaceTokenizer ("whitespace").
"""

import dataclasses
import html
import pathlib
from collections.abc import Sequence

import ftfy
import numpy as np
import tokenizers
from tokenizers import models, normalizers

from shotstream_jax.typing import Bool, Int

TOKENIZER_FILE = "tokenizer.json"
OFFICIAL_FOLDER = pathlib.Path("google", "umt5-xxl")
PAD, EOS = "<pad>", "</s>"
# Wan's text_len: the embeddings of 512 positions, padding included, are what it was trained on.
OFFICIAL_LENGTH = 512

# Enough to recognise a caption in a list of them.
_SHOWN = 60
"""Characters of a caption that an error message quotes."""


def clean_text(text: str) -> str:
    """Repair mojibake, unescape HTML entities twice, and make every run of whitespace one space."""
    # Twice, as the source does: scraped captions hold entities that were escaped twice
    # (&amp;quot;).
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """Captions to ids of a fixed length.

    Attributes:
      backend: the vocabulary and its segmentation, neither padding nor truncating.
      length: tokens of every tokenized caption, end token and padding included.
      pad: id behind the end of a caption.
      eos: id that ends every caption.
    """

    backend: tokenizers.Tokenizer
    length: int
    pad: int
    eos: int

    def __post_init__(self) -> None:
        """Raises: ValueError: a length that holds no caption."""
        if self.length < 1:
            raise ValueError(f"Token length {self.length} must be at least 1, for {EOS}.")

    @property
    def size(self) -> int:
        """One more than the largest id: the rows that an embedding table needs."""
        # Not the number of tokens: added tokens may leave gaps between ids.
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def count(self, caption: str) -> int:
        """Tokens of a caption once cleaned, the end token included."""
        return len(self._ids(caption))

    def tokenize(
        self, captions: Sequence[str], *, truncate: bool = False
    ) -> tuple[Int[np.ndarray, "caption text_token"], Bool[np.ndarray, "caption text_token"]]:
        """Ids of cleaned captions, padded to `length`, and a mask of those that are not padding.

        With `truncate`, a caption that is too long loses its last words but keeps its end token.

        Raises:
          ValueError: a caption that is too long, unless `truncate`.
        """
        ids = np.full((len(captions), self.length), self.pad, np.int32)
        mask = np.zeros(ids.shape, bool)
        for row, caption in enumerate(captions):
            tokens = self._ids(caption)
            if len(tokens) > self.length:
                if not truncate:
                    raise ValueError(self._too_long(row, caption, len(tokens)))
                # The end token stays: an encoder never saw a caption without one.
                tokens = [*tokens[: self.length - 1], self.eos]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return ids, mask

    def save(self, folder: pathlib.Path) -> None:
        """Write `tokenizer.json` into a folder, made if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOKENIZER_FILE).write_text(self.backend.to_str(pretty=True), encoding="utf-8")

    def _ids(self, caption: str) -> list[int]:
        encoding = self.backend.encode(clean_text(caption), add_special_tokens=False)
        return [*encoding.ids, self.eos]

    def _too_long(self, row: int, caption: str, count: int) -> str:
        shown = caption if len(caption) <= _SHOWN else caption[:_SHOWN] + "..."
        return (
            f"Caption {row} ({shown!r}) has {count} tokens, {EOS} included, and {self.length} fit; "
            "shorten it, or ask for truncate=True to drop its end."
        )


def load_tokenizer(folder: pathlib.Path, length: int = OFFICIAL_LENGTH) -> Tokenizer:
    """Read `tokenizer.json` from a folder, or from `google/umt5-xxl` of a Wan2.1 folder.

    Raises:
      FileNotFoundError: neither place has one.
      ValueError: the file is not a tokenizer, or has no padding or end token.
    """
    path = _find(folder)
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        # The library raises bare `Exception`, whatever is wrong.
        raise ValueError(
            f"{path} is not a readable tokenizer ({error}); fetch the file again."
        ) from error
    # Both settings may be stored in the file, where they would cut captions in silence.
    backend.no_truncation()
    backend.no_padding()
    vocabulary = backend.get_vocab(with_added_tokens=True)
    missing = [token for token in (PAD, EOS) if token not in vocabulary]
    if missing:
        raise ValueError(
            f"{path} has no {' and no '.join(missing)} token; use a tokenizer of the T5 family."
        )
    return Tokenizer(backend, length, pad=vocabulary[PAD], eos=vocabulary[EOS])


def word_tokenizer(words: Sequence[str], length: int) -> Tokenizer:
    """Make a tokenizer with one id a known word and one a byte of anything else.

    Case is ignored and so is whitespace beside a known word. Ids: 0 pads, 1 ends, then 256 bytes,
    then `words` in order; with the words `red` and `fox`,

        "A red fox."    a _ red fox .      `a`, the space and the full stop are bytes
        "reddish"       r e d d i s h      a known word inside another one does not count

    Raises:
      ValueError: an empty word.
    """
    # First mention counts: ids are rows of an embedding table and must not move.
    known = list(dict.fromkeys(clean_text(word).lower() for word in words))
    if "" in known:
        raise ValueError(f"Word {known.index('')} of the vocabulary is empty; remove it.")
    # Bytes as SentencePiece names them, which is what byte_fallback looks for. They make any text
    # tokenizable: no unknown token, no caption that cannot be filmed.
    alphabet = [PAD, EOS, *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {token: identity for identity, token in enumerate(alphabet)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    backend.normalizer = normalizers.Lowercase()
    backend.add_tokens([_whole_word(word) for word in known])
    return Tokenizer(backend, length, pad=vocabulary[PAD], eos=vocabulary[EOS])


def _whole_word(word: str) -> tokenizers.AddedToken:
    # Stripping takes the spaces beside a word into its token; as bytes they would double a caption.
    return tokenizers.AddedToken(word, single_word=True, lstrip=True, rstrip=True, normalized=True)


def _find(folder: pathlib.Path) -> pathlib.Path:
    places = [folder, folder / OFFICIAL_FOLDER]
    for place in places:
        if (place / TOKENIZER_FILE).is_file():
            return place / TOKENIZER_FILE
    looked = " or ".join(str(place.relative_to(folder) / TOKENIZER_FILE) for place in places)
    # The same vocabulary in SentencePiece's own format, which would take another library to read.
    pieces = [place / "spiece.model" for place in places if (place / "spiece.model").is_file()]
    if pieces:
        raise FileNotFoundError(
            f"{folder} holds {pieces[0].relative_to(folder)}, which is not read here, and no "
            f"{looked}; copy {TOKENIZER_FILE} of {OFFICIAL_FOLDER} beside it."
        )
    raise FileNotFoundError(
        f"No tokenizer in {folder}: looked for {looked}; copy {OFFICIAL_FOLDER} of Wan2.1 there."
    )
