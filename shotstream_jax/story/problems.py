"""Problems of a story, each in one line: where, which field, both values, what to do next.

A field is a path of keys and positions; a place is `file:line`. Fields are known before places:
a story built in Python has the first and never the second.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

# Half a line of a terminal, so that place, field and advice still fit beside it.
_LONGEST_QUOTE = 48
_WIDEST_NUMBER = 64  # bits; Python refuses to print very long integers

FieldPath = tuple[str | int, ...]


def field_name(path: FieldPath) -> str:
    """A path as a person writes it: `("shots", 1, "caption")` is `shots[1].caption`."""
    name = ""
    for step in path:
        if isinstance(step, int):
            name += f"[{step}]"
        else:
            name += f".{step if _is_plain(step) else quote(step)}"
    return name.removeprefix(".")


def _is_plain(step: str) -> bool:
    return step.isidentifier() and len(step) <= _LONGEST_QUOTE


def quote(value: Any) -> str:
    """A value for an error message: on one line, and short."""
    if isinstance(value, int) and value.bit_length() > _WIDEST_NUMBER:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, dict | list):
        return f"a {'list' if isinstance(value, list) else 'group'} of {len(value)}"
    shown = str(value)
    if isinstance(value, str):
        # Line ends and control characters must not reach a terminal or a log from a story file.
        shown = repr(value) if value.isprintable() else ascii(value)
    return shown if len(shown) <= _LONGEST_QUOTE else f"{shown[: _LONGEST_QUOTE - 1]}…"


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one field.

    Attributes:
      path: the field; empty for the whole story.
      message: what is wrong, both values, and the next step.
      where: `file:line`, or empty for a story that came from no file.
    """

    path: FieldPath
    message: str
    where: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, field_name(self.path), self.message) if part)


@dataclasses.dataclass(frozen=True)
class Places:
    """Where each field of a story was read.

    Attributes:
      file: the story's file, for what stands on no line.
      lines: `file:line` of each field.
    """

    file: str
    lines: Mapping[FieldPath, str]

    def of(self, path: FieldPath) -> str:
        """`file:line` of a field, or of the nearest field around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return self.file

    def locate(self, problems: Sequence[Problem]) -> tuple[Problem, ...]:
        """The same problems, each with its place, in the order in which the file is read."""
        # By position in the file, not by text: "story.yaml:10" sorts before "story.yaml:9".
        order = {place: index for index, place in enumerate(self.lines.values())}
        located = [dataclasses.replace(p, where=p.where or self.of(p.path)) for p in problems]
        return tuple(sorted(located, key=lambda problem: order.get(problem.where, -1)))


class StoryError(ValueError):
    """A story that cannot be filmed as it stands.

    Attributes:
      problems: everything that is wrong, in the order of the file.
    """

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        first, *rest = self.problems
        super().__init__(f"{first} (and {len(rest)} more)" if rest else str(first))
