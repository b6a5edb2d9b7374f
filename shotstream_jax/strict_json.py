"""Dataclasses from JSON, strictly: every field known, present and of its own type.

A setting that is dropped or guessed films something else than was meant, so nothing is: what is
wrong is named with its place, the value found and what was expected.
"""

import dataclasses
import json
import math
import pathlib
import types
import typing
from collections.abc import Collection
from typing import Any, TypeVar

T = TypeVar("T")

_SHOWN = 60
"""Characters of a wrong value that an error shows."""

_EXPECTED = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}


def load_object(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      OSError: a file that cannot be read.
      ValueError: a file that is not JSON, is nested too deep to be read, or holds no object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    # A thousand opening brackets are within JSON's grammar and beyond Python's stack.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); convert or fetch it again.") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds no JSON object; convert or fetch it again.")
    return document


def read_dataclass(
    kind: type[T], document: object, where: str, *, optional: Collection[str] = ()
) -> T:
    """An instance of a dataclass, from an object with one member a field.

    Args:
      kind: the dataclass; its fields are numbers, texts, flags, dataclasses or tuples of those.
      document: the object, as `json.loads` gives it.
      where: names the object in errors.
      optional: fields that may be absent, in this dataclass or in those within it; they take
        their defaults.

    Raises:
      ValueError: a field that is not known, absent or of another type, or values that `kind`
        itself refuses.
    """
    if not isinstance(document, dict):
        raise ValueError(f"{where} is {brief(document)} and must be an object.")
    hints = typing.get_type_hints(kind)
    unknown = sorted(document.keys() - hints.keys())
    if unknown:
        raise ValueError(
            f"{where} has a field {brief(unknown[0])} that is not known here; install the release "
            "that wrote it, or take the field out if nothing needs it."
        )
    absent = [name for name in hints if name not in document and name not in optional]
    if absent:
        raise ValueError(f"{where} has no {absent[0]}; fetch or convert the file again.")
    fields = {
        name: _value(hints[name], value, f"{where}.{name}", optional)
        for name, value in document.items()
    }
    try:
        return kind(**fields)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _value(hint: Any, value: object, where: str, optional: Collection[str]) -> Any:
    """A value as a field of type `hint` holds it."""
    if dataclasses.is_dataclass(hint):
        return read_dataclass(typing.cast(type, hint), value, where, optional=optional)
    if isinstance(hint, types.UnionType):
        # Only `kind | None` is used; an absent field and null mean the same.
        inner = next(kind for kind in typing.get_args(hint) if kind is not type(None))
        return None if value is None else _value(inner, value, where, optional)
    if typing.get_origin(hint) is tuple:
        return _items(typing.get_args(hint), value, where, optional)
    # A flag is an int to Python and a whole number is a float to people.
    wanted = (int, float) if hint is float else hint
    fits = isinstance(value, wanted) and (hint is bool or not isinstance(value, bool))
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{where} is {brief(value)} and must be {_EXPECTED[hint]}.")
    return value


def _items(
    hints: tuple[Any, ...], value: object, where: str, optional: Collection[str]
) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{where} is {brief(value)} and must be a list.")
    if hints[-1] is Ellipsis:
        hints = hints[:1] * len(value)
    if len(hints) != len(value):
        raise ValueError(f"{where} has {len(value)} values and must have {len(hints)}.")
    return tuple(
        _value(hint, item, f"{where}[{index}]", optional)
        for index, (hint, item) in enumerate(zip(hints, value, strict=True))
    )


def brief(value: object) -> str:
    """A value as an error shows it, cut if it is long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
