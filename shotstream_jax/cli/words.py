"""`shotstream words`: the words that a small model knows, and those of a story that it does not."""

import dataclasses
import json
import pathlib
import sys
import textwrap
from typing import Annotated

import tyro

from shotstream_jax.cli.exit_codes import ExitCode
from shotstream_jax.data.closed_vocabulary import known_words, unknown_words
from shotstream_jax.data.tokenizer import Tokenizer
from shotstream_jax.model import find_model
from shotstream_jax.story import load_story


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words:
    """Of which model, and in which story.

    Attributes:
      story: a story, whose unknown words are listed by shot; without it, the words of the model.
      checkpoint: folder of the model; without it, the miniature that comes with the package.
      json: print one JSON object.
    """

    story: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="STORY")] = None
    checkpoint: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def list_words(args: Annotated[Words, tyro.conf.arg(name="")]) -> int:
    """Print the words that a model knows, or those of a story that it does not know.

    A model with the released text encoder reads any text; the miniature knows a hundred words, and
    one that it does not know spoils a shot.

    Args:
      args: of which model, and in which story.

    Returns:
      `NEGATIVE` if a story has words that the model does not know.

    Raises:
      ValueError: a story or a model that cannot be read.
    """
    tokenizer = find_model(args.checkpoint or "tiny").tokenizer
    if args.story is None:
        sys.stdout.write(_vocabulary(tokenizer, as_json=args.json))
        return ExitCode.DONE
    unknown = unknown_words(tokenizer, load_story(args.story))
    if args.json:
        document = {"unknown": [dataclasses.asdict(shot) for shot in unknown]}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    else:
        lines = [str(shot) for shot in unknown] or ["The model knows every word of this story."]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    return ExitCode.NEGATIVE if unknown else ExitCode.DONE


def _vocabulary(tokenizer: Tokenizer, *, as_json: bool) -> str:
    words = known_words(tokenizer)
    if as_json:
        return json.dumps({"closed": words is not None, "words": words}, ensure_ascii=False) + "\n"
    if words is None:
        return "This model reads any text: its vocabulary is not closed.\n"
    return textwrap.fill(" ".join(words), 80, break_on_hyphens=False) + "\n"
