"""What `shotstream --help` prints, and what a misspelt verb is answered with.

Verbs are described by their own docstrings, read from the sources: importing the verbs takes
seconds, and the list of them must be there at once.
"""

import ast
import difflib
import pathlib
import shutil
import textwrap
from collections.abc import Mapping

from shotstream_jax import __version__
from shotstream_jax.cli.exit_codes import table

VERBS: Mapping[str, tuple[str, str]] = {
    "demo": ("demo", "demo"),
    "check": ("check", "check_story"),
    "words": ("words", "list_words"),
    "generate": ("generate", "generate"),
    "convert": ("convert", "convert"),
    "train": ("train", "Train"),
    "eval": ("evaluate", "evaluate"),
    "plan": ("plan", "plan"),
    "bench": ("bench", "bench"),
    "completion": ("completion", "completion"),
}
"""For each verb, its module in this package, and the function or options whose docstring helps."""

_GROUPS = {
    "Film a story": ("demo", "check", "words", "generate"),
    "Have a model": ("convert", "train", "eval"),
    "Know a machine": ("plan", "bench"),
    "The shell": ("completion",),
}

_EXAMPLES = """\
  shotstream demo                                    a first film, in a minute
  shotstream check story.yaml                        what is wrong with a story, what it takes
  shotstream generate story.yaml -o film             film it
  shotstream generate story.yaml -o film --resume --only 2      shot 2 again, as another take
  shotstream convert shotstream_merged.pt --wan Wan2.1-T2V-1.3B -o checkpoints/shotstream
  shotstream VERB --help                             the options of a verb"""

# Wider paragraphs are hard to read, narrower terminals wrap by themselves.
_WIDEST, _NARROWEST = 100, 60


def help_text() -> str:
    """Verbs in groups, examples, and what the exit status means."""
    width = min(_WIDEST, max(_NARROWEST, shutil.get_terminal_size().columns))
    groups = "\n\n".join(
        f"{title}:\n" + "\n".join(_described(verb, width) for verb in verbs)
        for title, verbs in _GROUPS.items()
    )
    return (
        f"usage: shotstream [--version] [-h] VERB ...\n\n"
        f"Film stories shot by shot (shotstream {__version__}).\n\n{groups}\n\n"
        f"Examples:\n{_EXAMPLES}\n\nExit status:\n{table()}\n"
    )


def _described(verb: str, width: int) -> str:
    indent = " " * 13
    words = f"  {verb:<11}{summary(verb)}"
    return textwrap.fill(words, width, subsequent_indent=indent, break_long_words=False)


def summary(verb: str) -> str:
    """The first sentence of a verb's docstring."""
    module, name = VERBS[verb]
    source = pathlib.Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    raise LookupError(f"cli/{module}.py defines no {name}.")


def no_such_verb(word: str) -> str:
    """One line about a word that is no verb."""
    near = difflib.get_close_matches(word[:40], VERBS, n=1)
    if near:
        return f"no verb is called {word!r}; did you mean {near[0]}?"
    if pathlib.Path(word.partition("#")[0]).suffix.lower() in (".yaml", ".yml", ".json", ".csv"):
        return f"{word!r} is no verb; to film it: shotstream generate {word} -o film"
    return f"no verb is called {word!r}; the verbs are {', '.join(VERBS)}"
