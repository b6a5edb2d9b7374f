"""The text of a YAML or JSON file as plain values, and the line on which each field stands.

Both formats are read by the same rules: UTF-8, one document, no field twice, no aliases (a story's
text stands where it is used). A field's line is that of its name; a list item's line is that of its
first character.
"""

import dataclasses
import json
import pathlib
import re
from typing import Any, NoReturn

import yaml

from shotstream_jax.story.problems import FieldPath, Places, Problem, StoryError, quote

# Between values JSON allows tabs, which YAML refuses; inside text it allows characters that YAML
# calls unprintable, or takes for line ends and would count as such.
_NOT_YAML = re.compile("[^\n\r\x20-\x7e\xa0-\u2027\u202a-\ufffd\U00010000-\U0010ffff]")


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
    text = read_utf8(path)
    try:
        parse = _parse_json if path.suffix.lower() == ".json" else _parse_yaml
        document = parse(text, str(path))
    except RecursionError:
        fail("groups within groups without end; a story is three deep", str(path))
    if document.value is None:
        fail("empty; start with version, title and shots", str(path))
    return document


def read_utf8(path: pathlib.Path) -> str:
    """The text of a UTF-8 file.

    Raises:
      StoryError: a file that cannot be read, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        fail(f"cannot be read: {(error.strerror or str(error)).lower()}", str(path))
    try:
        # Windows editors put a byte order mark before UTF-8; it is no part of the text.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        fail(f"byte {byte:#04x} is not UTF-8; save the file as UTF-8", f"{path}:{line}")


def _parse_json(text: str, file: str) -> Document:
    try:
        # Python's decoder also takes NaN and Infinity, which other readers of the file would not.
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        fail(f"not JSON: {error.msg[0].lower()}{error.msg[1:]}", f"{file}:{error.lineno}")
    except ValueError as error:
        fail(f"not JSON: {error}", file)
    # JSON is YAML, whose nodes have lines and repeated names. Values stay JSON's: YAML has other
    # rules for numbers and escapes, so that characters which it refuses may be blanked.
    try:
        nodes = _compose(_NOT_YAML.sub(" ", text), file)
    except yaml.MarkedYAMLError as error:
        # All that is left of valid JSON which YAML does not read.
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        fail("a name apart from its ':', or very long; write both on one line", f"{file}:{line}")
    return Document(value, nodes.places)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _parse_yaml(text: str, file: str) -> Document:
    try:
        return _compose(text, file)
    except yaml.MarkedYAMLError as error:
        fail(*_yaml_fault(error, file))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        fail(f"not YAML: control character {error.character:#04x}", f"{file}:{line}")


def _compose(text: str, file: str) -> Document:
    loader = yaml.SafeLoader(text)
    root = loader.get_single_node()
    walk = _YamlWalk(loader, file)
    value = None if root is None else walk.value(root, (), root)
    return Document(value, Places(file, walk.lines))


def _yaml_fault(error: yaml.MarkedYAMLError, file: str) -> tuple[str, str]:
    """The message and the place of a fault, from the earlier of its two marks."""
    # The second mark is where the parser gave up, often lines behind the mistake.
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
            # YAML 1.1 reads unquoted `on`, `yes` or `1` as other types: such a name is a mistake.
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
            # Unquoted text such as 2024-99-99 has a date's form and no date's value.
            kind = node.tag.rpartition(":")[2]
            fail(
                f"{quote(node.value)} looks like a {kind} but is none; put text in quotes",
                self.lines[path],
                path,
            )
