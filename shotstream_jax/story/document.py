"""The text of a YAML or JSON file as plain values, and the line on which each field stands.

Both formats are read by the same rules: UTF-8, one document, no field twice, no aliases (what a
story says is written where it is said). A field's line is that of its name; a list item's line is
that of its first character.
"""

import dataclasses
import json
import pathlib
from typing import Any, NoReturn

import yaml

from shotstream_jax.story.problems import FieldPath, Places, Problem, StoryError, quote


@dataclasses.dataclass(frozen=True)
class Document:
    """Plain values and where they were read.

    Attributes:
      value: dictionaries, lists, text, numbers.
      places: `file:line` of every field.
    """

    value: Any
    places: Places


def fail(message: str, where: str, path: FieldPath = ()) -> NoReturn:
    """Raises: StoryError: always, with this one problem."""
    raise StoryError([Problem(path, message, where)])


def read_document(path: pathlib.Path) -> Document:
    """The document in a `.json` file, or else a YAML file.

    Raises:
      StoryError: a file that cannot be read, is not UTF-8, or breaks the rules of its format.
    """
    text = read_text(path)
    try:
        parse = _parse_json if path.suffix.lower() == ".json" else _parse_yaml
        document = parse(text, str(path))
    except RecursionError:
        fail("groups within groups without end; a story is three deep", str(path))
    if document.value is None:
        fail("empty; start with version, title and shots", str(path))
    return document


def read_text(path: pathlib.Path) -> str:
    """The text of a UTF-8 file.

    Raises:
      StoryError: a file that cannot be read, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        fail(f"cannot be read: {(error.strerror or str(error)).lower()}", str(path))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        fail(f"byte {byte:#04x} is not UTF-8; save the file as UTF-8", f"{path}:{line}")


def _parse_json(text: str, file: str) -> Document:
    try:
        # Everything that is not JSON is found here; the walk below meets valid text only.
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        fail(f"not JSON: {error.msg[0].lower()}{error.msg[1:]}", f"{file}:{error.lineno}")
    except ValueError as error:
        fail(f"not JSON: {error}", file)
    walk = _JsonWalk(text, file)
    walk.value(walk.skip(0), (), 1)
    return Document(value, Places(file, walk.lines))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


class _JsonWalk:
    """Finds the line of every field in text that is known to be JSON."""

    def __init__(self, text: str, file: str):
        self.text = text
        self.file = file
        self.lines: dict[FieldPath, str] = {}
        self.decoder = json.JSONDecoder()

    def skip(self, at: int) -> int:
        while at < len(self.text) and self.text[at] in " \t\r\n":
            at += 1
        return at

    def line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def value(self, at: int, path: FieldPath, line: int) -> int:
        """Note the value that starts at `at`; the position just after it."""
        self.lines[path] = f"{self.file}:{line}"
        match self.text[at]:
            case "{":
                return self.group(at, path)
            case "[":
                return self.items(at, path)
            case _:
                return self.decoder.raw_decode(self.text, at)[1]

    def group(self, at: int, path: FieldPath) -> int:
        at = self.skip(at + 1)
        while self.text[at] != "}":
            name, after = self.decoder.raw_decode(self.text, at)
            line = self.line(at)
            if (*path, name) in self.lines:
                first = self.lines[(*path, name)]
                fail(
                    f"written twice, first at {first}; keep one",
                    f"{self.file}:{line}",
                    (*path, name),
                )
            colon = self.skip(after)
            at = self.next_value(self.value(self.skip(colon + 1), (*path, name), line))
        return at + 1

    def items(self, at: int, path: FieldPath) -> int:
        at = self.skip(at + 1)
        index = 0
        while self.text[at] != "]":
            at = self.next_value(self.value(at, (*path, index), self.line(at)))
            index += 1
        return at + 1

    def next_value(self, at: int) -> int:
        at = self.skip(at)
        return self.skip(at + 1) if self.text[at] == "," else at


def _parse_yaml(text: str, file: str) -> Document:
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        walk = _YamlWalk(loader, file)
        value = None if root is None else walk.value(root, (), root)
    except yaml.MarkedYAMLError as error:
        fail(*_yaml_fault(error, file))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        fail(f"not YAML: control character {error.character:#04x}", f"{file}:{line}")
    return Document(value, Places(file, walk.lines))


def _yaml_fault(error: yaml.MarkedYAMLError, file: str) -> tuple[str, str]:
    """The message and the place of a fault, from the earlier of its two marks."""
    marks = [mark for mark in (error.context_mark, error.problem_mark) if mark]
    place = f"{file}:{marks[0].line + 1}" if marks else file
    says = ", ".join(part for part in (error.context, error.problem) if part)
    return f"not YAML: {says}; text that holds ': ', '#' or quotes needs quotes around it", place


class _YamlWalk:
    """Builds plain values from YAML nodes, noting the line of every field."""

    def __init__(self, loader: yaml.SafeLoader, file: str):
        self.loader = loader
        self.file = file
        self.lines: dict[FieldPath, str] = {}
        self.seen: set[int] = set()

    def place(self, node: yaml.Node) -> str:
        return f"{self.file}:{node.start_mark.line + 1}"

    def value(self, node: yaml.Node, path: FieldPath, named: yaml.Node) -> Any:
        """The plain value of a node; its field stands where `named` does."""
        place = self.place(named)
        if id(node) in self.seen:
            # A few aliases of aliases are enough to fill any memory.
            fail("an alias (*name); write the value out", place, path)
        self.seen.add(id(node))
        self.lines[path] = place
        match node:
            case yaml.MappingNode():
                return self.group(node, path)
            case yaml.SequenceNode():
                return [self.value(n, (*path, i), n) for i, n in enumerate(node.value)]
            case _:
                return self.scalar(node, path)

    def group(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for key, child in node.value:
            name = key.value
            if not isinstance(name, str) or key.tag != "tag:yaml.org,2002:str":
                fail(f"{quote(name)} is no field name; a name is plain text", self.place(key), path)
            if name in fields:
                first = self.lines[(*path, name)]
                fail(f"written twice, first at {first}; keep one", self.place(key), (*path, name))
            fields[name] = self.value(child, (*path, name), key)
        return fields

    def scalar(self, node: yaml.Node, path: FieldPath) -> Any:
        try:
            return self.loader.construct_object(node)
        except ValueError:
            kind = node.tag.rpartition(":")[2]
            fail(
                f"{quote(node.value)} looks like a {kind} but is none; put text in quotes",
                self.lines[path],
                path,
            )
