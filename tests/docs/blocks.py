"""Fenced blocks of README.md and docs/, and how each is run.

    ```python          run in this process, in a folder of the page's own
    ```bash            each command is run, in this process too: `shotstream ...`, `python FILE`
    ```yaml title="story.yaml"     written to that file, for the commands after it
    ```text            drawings and output: read by people only

A block that this machine cannot run is marked above: `<!-- needs: gpu -->`. Its commands are only
parsed, by the parser that would run them.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator

import tyro
import yaml

from shotstream_jax.cli.main import find_verb, main
from shotstream_jax.cli.train import load_experiment, override

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [page for page in PAGES if "site" not in page.parts]

NEEDS = {
    "gpu": "an NVIDIA GPU",
    "tpu": "a TPU, or its compiler",
    "weights": "the released weights",
    "installation": "a package index",
    "minutes": "more time than a test has",
    "hours": "hours of training",
}
"""Why a block may stay unrun."""

RUN = {"python", "bash"}
PARSED = {"yaml", "json"}
SHOWN = {"text"}

_FENCE = re.compile(
    r"(?:^[ ]*<!-- needs: (?P<needs>[^>]*?) -->\n(?:[ ]*\n)?)?"
    r"^(?P<indent>[ ]*)```(?P<language>[^\s`]*)(?P<rest>[^\n]*)\n(?P<text>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block: where it is, its language, what it needs, and the file it is said to be."""

    page: str
    line: int
    language: str
    text: str
    needs: str | None
    title: str | None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.language in RUN and self.needs is None


def blocks_of(page: pathlib.Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return parse_blocks(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT)))


def parse_blocks(text: str, page: str) -> list[Block]:
    """The fenced blocks of a text, in order."""
    blocks = []
    for match in _FENCE.finditer(text):
        title = re.search(r'title="([^"]+)"', match["rest"])
        indent = match["indent"]
        lines = [line.removeprefix(indent) for line in match["text"].splitlines()]
        blocks.append(
            Block(
                page=page,
                line=text.count("\n", 0, match.start("language")) + 1,
                language=match["language"],
                text="\n".join(lines) + "\n",
                needs=match["needs"],
                title=title[1] if title else None,
            )
        )
    return blocks


def commands_of(block: Block) -> list[list[str]]:
    """The commands of a shell block as words, without comments and variables before them."""
    lines = block.text.replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    split = [words[next(_first_word(words), 0) :] for words in split]
    return [words for words in split if words]


def _first_word(words: list[str]) -> Iterator[int]:
    return (place for place, word in enumerate(words) if not re.match(r"[A-Z_]+=", word))


def run_block(block: Block) -> None:
    """Run a block in the current folder; raises if it does not do what a reader expects."""
    if block.title:
        pathlib.Path(block.title).write_text(block.text, encoding="utf-8")
    _RUNNERS.get(block.language, lambda block: None)(block)


def _run_python(block: Block) -> None:
    code = compile(block.text, block.place, "exec")
    if block.is_run:
        exec(code, {"__name__": "__main__"})


def _run_shell(block: Block) -> None:
    for words in commands_of(block):
        if block.is_run:
            run_command(words, block.place)
        else:
            parse_command(words)


_RUNNERS: dict[str, Callable[[Block], object]] = {
    "python": _run_python,
    "bash": _run_shell,
    "yaml": lambda block: yaml.safe_load(block.text),
    "json": lambda block: json.loads(block.text),
}


def run_command(words: list[str], place: str) -> None:
    """Run one command in this process."""
    program, *rest = words
    if program == "shotstream":
        with _arguments(words):
            status = main(rest)
        assert status == 0, f"{place}: {shlex.join(words)} ended with status {status}."
    elif program == "python" and rest and rest[0].endswith(".py"):
        with _arguments(rest):
            runpy.run_path(rest[0], run_name="__main__")
    else:
        raise AssertionError(
            f"{place}: no test can run `{shlex.join(words)}`; say above the block what it needs: "
            "<!-- needs: ... -->, one of " + ", ".join(NEEDS)
        )


def parse_command(words: list[str]) -> None:
    """Read a command's options as it would, and do nothing; other programs' are not read."""
    program, *rest = words
    if program != "shotstream":
        return
    verb, *options = rest
    function = find_verb(verb)
    try:
        if verb == "train":
            args, overrides = tyro.cli(function, args=options, return_unknown_args=True)
            override(load_experiment(args.experiment), overrides, args.experiment)
        else:
            tyro.cli(functools.wraps(function)(lambda *args, **named: None), args=options)
    except SystemExit as error:
        raise AssertionError(f"`{shlex.join(words)}` is refused by its own parser.") from error


@contextlib.contextmanager
def workspace(folder: pathlib.Path) -> Iterator[None]:
    """Work in a folder that looks like a clone, but whose outputs go nowhere else."""
    for name in ("configs", "examples", "launch", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    before = pathlib.Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _arguments(words: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, words
    try:
        yield
    finally:
        sys.argv = before
