"""The published JSON Schema of story files, and its errors as one-line problems.

The schema is the only place where a field's type and range are written: story files and stories
built in Python are validated by the same text.
"""

import difflib
import functools
import importlib.resources
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jsonschema

from shotstream_jax.story.problems import FieldPath, Problem, quote

# Similarity takes as many steps as the square of a name's length.
_LONGEST_NAME = 64

# JSON's names of types, as a person who writes YAML would put them.
_KINDS = {
    "array": "a list",
    "integer": "a whole number",
    "object": "a group of fields",
    "string": "text in quotes",
}


@functools.cache
def story_schema() -> dict[str, Any]:
    """The JSON Schema of a story file, as published."""
    resource = importlib.resources.files("shotstream_jax.story") / "story.schema.json"
    return json.loads(resource.read_text(encoding="utf-8"))


def most_shots() -> int:
    """Shots that a story may have."""
    return story_schema()["properties"]["shots"]["maxItems"]


def shot_fields() -> tuple[str, ...]:
    """Names of the fields of a shot."""
    return tuple(story_schema()["$defs"]["shot"]["properties"])


# Building a validator takes longer than checking a story with it.
@functools.cache
def _validator(definition: str | None) -> jsonschema.Draft202012Validator:
    schema = story_schema()
    if definition is not None:
        schema = {"$ref": f"#/$defs/{definition}", "$defs": schema["$defs"]}
    return jsonschema.Draft202012Validator(schema)


def schema_problems(document: Any, definition: str | None = None) -> tuple[Problem, ...]:
    """Problems of a document by the schema, or by one definition of it; at most one a field."""
    if definition is None and (problem := _too_many_shots(document)):
        # Before any shot is looked at: checking each takes a tenth of a millisecond.
        return (problem,)
    errors = list(_validator(definition).iter_errors(document))
    # A field of the wrong type breaks ranges and patterns too: its type is the one thing to mend.
    mistyped = {tuple(e.absolute_path) for e in errors if e.validator == "type"}
    found: dict[FieldPath, Problem] = {}
    for error in errors:
        path = tuple(error.absolute_path)
        if error.validator == "type" or path not in mistyped:
            for problem in _problems(path, error):
                found.setdefault(problem.path, problem)
    if definition is None and ("version",) in found:
        # All other errors come from the rules of another version.
        return (found["version",],)
    return tuple(found.values())


def _too_many_shots(document: Any) -> Problem | None:
    shots = document.get("shots") if isinstance(document, dict) else None
    if not isinstance(shots, list) or len(shots) <= most_shots():
        return None
    schema = story_schema()["properties"]["shots"]
    return Problem(("shots",), _too_many(shots, most_shots(), schema))


def _problems(path: FieldPath, error: jsonschema.ValidationError) -> Iterator[Problem]:
    value: Any = error.instance
    wanted: Any = error.validator_value
    schema: Any = error.schema
    match error.validator:
        case "additionalProperties":
            for name in value:
                if name not in schema["properties"]:
                    yield Problem((*path, name), unknown_field(name, schema["properties"]))
        case "required":
            for name in wanted:
                if name not in value:
                    yield Problem((*path, name), _missing(name, schema["properties"][name]))
        case keyword:
            yield Problem(path, _MESSAGES[str(keyword)](value, wanted, schema))


def unknown_field(name: str, known: Iterable[str]) -> str:
    """What is wrong with a field's name, and which may have been meant."""
    nearest = difflib.get_close_matches(name[:_LONGEST_NAME], known, n=1)
    advice = f"did you mean {nearest[0]}?" if nearest else f"the fields are {', '.join(known)}"
    return f"unknown field; {advice}"


def _missing(name: str, schema: dict[str, Any]) -> str:
    # Of several versions the newest is what a new file should say.
    value = f" {schema['enum'][-1]}" if name == "version" else ""
    return f"missing; add {name}:{value} ({schema['description']})"


def _wrong_kind(value: Any, kind: str, schema: dict[str, Any]) -> str:
    if value is None:
        return f"nothing is written; write {_KINDS[kind]} or leave the field out"
    return f"{quote(value)} is not {_KINDS[kind]}; write {_KINDS[kind]}"


def _out_of_range(value: int | float, bound: int, schema: dict[str, Any]) -> str:
    low, high = schema["minimum"], schema["maximum"]
    side = "below" if value < low else "above"
    return f"{quote(value)} is {side} {bound}; write a whole number from {low} to {high}"


def _not_a_multiple(value: int | float, step: int, schema: dict[str, Any]) -> str:
    if not schema["minimum"] <= value <= schema["maximum"]:
        # The nearest multiple of a number of 300 digits is no advice.
        return _out_of_range(value, schema["minimum" if value < step else "maximum"], schema)
    # At least one step: 0 would be a multiple, and no size.
    below = max(step, int(value) // step * step)
    return f"{quote(value)} is not a multiple of {step}; write {below} or {below + step}"


def _not_the_one(value: Any, only: Any, schema: dict[str, Any]) -> str:
    return f"{quote(value)} where only {only} will do ({schema['description']}); write {only}"


def _not_a_choice(value: Any, choices: list[Any], schema: dict[str, Any]) -> str:
    choices = [str(choice) for choice in choices]
    nearest = difflib.get_close_matches(str(value)[:_LONGEST_NAME], choices, n=1)
    return f"{quote(value)} is not known; write {' or '.join(nearest or choices)}"


def _too_few(value: list[Any], fewest: int, schema: dict[str, Any]) -> str:
    return f"{len(value)} in the list, {fewest} or more needed; write {schema['description']}"


def _too_many(value: list[Any], most: int, schema: dict[str, Any]) -> str:
    return f"{len(value)} in the list, {most} at most; write {schema['description']}"


def _too_long(value: str, most: int, schema: dict[str, Any]) -> str:
    return f"{len(value):,} characters, {most:,} at most; shorten the text"


def _unfit(value: str, pattern: str, schema: dict[str, Any]) -> str:
    return f"{quote(value)} {schema['patternErrorMessage']}"


# One sentence a keyword of JSON Schema; a keyword that is new to the schema file fails its test.
_MESSAGES: dict[str, Callable[[Any, Any, dict[str, Any]], str]] = {
    "const": _not_the_one,
    "enum": _not_a_choice,
    "maxItems": _too_many,
    "maxLength": _too_long,
    "maximum": _out_of_range,
    "minItems": _too_few,
    "minimum": _out_of_range,
    "multipleOf": _not_a_multiple,
    "pattern": _unfit,
    "type": _wrong_kind,
}
