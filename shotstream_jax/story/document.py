"""The text of a YAML or JSON file as plain values, and the line on which each field stands.

Both formats are read by the same rules: UTF-8, one document, no field twice, no aliases (a story's
text stands where it is used), and limits of size and depth, so that no file costs more than a few
seconds. A field's line is that of its name; a list item's line is that of its first character.
"""

import dataclasses
import json
import pathlib
import re
import sys
from typing import Any, NoReturn

import yaml

from shotstream_jax.story.problems import FieldPath, Places, Problem, StoryError, quote
from shotstream_jax.story.schema import most_shots

STDIN = "-"
"""In place of a path: the text comes from standard input."""

MOST_BYTES = 1_000_000
"""Size of a story file: as many shots as it may have, with a thousand characters each."""

# 1,000 shots with every field written are 15,001 values, names counted; YAML is read at some 20,000
# values a second.
_MOST_VALUES = 20_000

# A story is four deep; the reader of YAML itself gives up beyond a few hundred.
_DEEPEST = 16

_LONGEST_NUMBER = 64
"""Characters of a number or a date: reading one of n digits takes n * n steps."""

# Whatever else than a MarkedYAMLError comes out of PyYAML: its constructors and escapes trust their
# text, `!!timestamp x` is an AttributeError, `!!bool maybe` a KeyError, "\\U00110000" a ValueError.
_UNREADABLE = (ValueError, LookupError, ArithmeticError, AttributeError, TypeError)

# Between values JSON allows tabs, which YAML refuses; inside text it allows characters that YAML
# calls unprintable, or takes for line ends and would count as such.
_NOT_YAML = re.compile("[^\n\r\x20-\x7e\xa0-\u2027\u202a-\ufffd\U00010000-\U0010ffff]")


@dataclasses.dataclass(frozen=True)
class Document:
    """Plain values and where they were read.

    Attributes:
      value: dictionaries, lists, text, numbers.
      places: `file:line` of every field.
      notes: what was there and is not filmed, for the reader to know.
    """

    value: Any
    places: Places
    notes: tuple[Problem, ...] = ()


def fail(message: str, where: str, path: FieldPath = ()) -> NoReturn:
    """Raises: StoryError: always, with this one problem."""
    raise StoryError([Problem(path, message, where)])


def read_document(path: pathlib.Path) -> Document:
    """The document in a `.json` file, or else a YAML file.

    Raises:
      StoryError: a file that cannot be read, is not UTF-8, or breaks the rules of its format.
    """
    return parse_document(read_utf8(path), str(path), is_json=path.suffix.lower() == ".json")


def parse_document(text: str, file: str, *, is_json: bool) -> Document:
    """The document in a text that was read from `file`.

    Raises:
      StoryError: a text that breaks the rules of its format, or is too large.
    """
    try:
        document = _parse_json(text, file) if is_json else _parse_yaml(text, file)
    except RecursionError:
        fail("groups within groups without end; a story is three deep", file)
    if document.value is None:
        fail("empty; start with version, title and shots", file)
    return document


def read_utf8(path: pathlib.Path) -> str:
    """The text of a UTF-8 file, or of standard input for the path `-`.

    Raises:
      StoryError: a file that cannot be read, is too large, or is not UTF-8.
    """
    file = str(path)
    try:
        if file == STDIN:
            content = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with path.open("rb") as stream:
                content = stream.read(MOST_BYTES + 1)
    except (OSError, ValueError, AttributeError) as error:
        # A path with a zero byte is a ValueError; standard input that is closed is `None`.
        reason = getattr(error, "strerror", None) or str(error)
        fail(f"cannot be read: {reason.lower()}", file)
    if len(content) > MOST_BYTES:
        fail(f"more than {MOST_BYTES:,} bytes, the most a story may have; film it in parts", file)
    try:
        # Windows editors put a byte order mark before UTF-8; it is no part of the text.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        fail(f"byte {byte:#04x} is not UTF-8; save the file as UTF-8", f"{file}:{line}")


def _parse_json(text: str, file: str) -> Document:
    try:
        # Python's decoder also takes NaN and Infinity, which other readers of the file would not.
        value = json.loads(text, parse_constant=_refuse_constant, parse_int=_whole_number)
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


def _whole_number(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


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
    """Read a text as YAML.

    Raises:
      StoryError: too much of it, or text that YAML's own reader stumbles over.
      yaml.YAMLError: text that is not YAML.
    """
    loader = _BoundedLoader(text, file)
    try:
        root = loader.get_single_node()
    except StoryError:
        raise
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        fail(f"not YAML: {reason}; put text in single quotes", f"{file}:{loader.line + 1}")
    walk = _YamlWalk(loader, file)
    value = None if root is None else walk.value(root, (), root)
    return Document(value, Places(file, walk.lines))


class _BoundedLoader(yaml.SafeLoader):
    """Stops at the first value too many, before it has read the rest."""

    def __init__(self, text: str, file: str):
        super().__init__(text)
        self.file = file
        self.values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.count()
        # PyYAML counts the items of a list, and names those of a group by their nodes.
        if isinstance(index, int) and index >= most_shots():
            place = f"{self.file}:{self.line + 1}"
            fail(f"a list of more than {most_shots():,}; a film has at most as many shots", place)
        return super().compose_node(parent, index)

    def fetch_flow_sequence_start(self) -> None:
        self.refuse_depth()
        super().fetch_flow_sequence_start()

    def fetch_flow_mapping_start(self) -> None:
        self.refuse_depth()
        super().fetch_flow_mapping_start()

    def refuse_depth(self) -> None:
        # Every open bracket may begin a name, and each is looked at again at every further one.
        if self.flow_level >= _DEEPEST:
            place = f"{self.file}:{self.line + 1}"
            fail("groups within groups within groups; a story is three deep", place)

    def scan_directive(self) -> yaml.Token:
        # `%A` on every line costs as much as a value.
        self.count()
        return super().scan_directive()

    def count(self) -> None:
        self.values += 1
        if self.values > _MOST_VALUES:
            place = f"{self.file}:{self.line + 1}"
            fail(f"more than {_MOST_VALUES:,} names and values; film it in parts", place)


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
        if len(path) > _DEEPEST:
            fail("groups within groups; a story is three deep", place)
        if id(node) in self.seen:
            # A few aliases of aliases are enough to fill any memory.
            fail("an alias (*name); write the value out", place, path)
        self.seen.add(id(node))
        self.lines[path] = place
        self.refuse_tag(node, path)
        match node:
            case yaml.MappingNode():
                return self.group(node, path)
            case yaml.SequenceNode():
                return [self.value(n, (*path, i), n) for i, n in enumerate(node.value)]
            case yaml.ScalarNode():
                return self.scalar(node, path)
            case _:
                raise AssertionError(f"PyYAML has no node of type {type(node).__name__}.")

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

    def refuse_tag(self, node: yaml.Node, path: FieldPath) -> None:
        # `!!set {a, b}` and `!shot {...}` would be read as the plain group or list they are not.
        kinds = {yaml.MappingNode: "map", yaml.SequenceNode: "seq"}
        kind = kinds.get(type(node))
        if kind and node.tag != f"tag:yaml.org,2002:{kind}":
            fail(f"{quote(node.tag)} is no tag of a story; take it out", self.lines[path], path)

    def scalar(self, node: yaml.ScalarNode, path: FieldPath) -> Any:
        kind = node.tag.rpartition(":")[2]
        if kind != "str" and len(node.value) > _LONGEST_NUMBER:
            message = f"{quote(node.value)} is long for a {kind}; put text in quotes"
            fail(message, self.lines[path], path)
        try:
            return self.loader.construct_object(node)
        except _UNREADABLE:
            # Unquoted text such as 2024-99-99 has a date's form and no date's value.
            fail(
                f"{quote(node.value)} looks like a {kind} but is none; put text in quotes",
                self.lines[path],
                path,
            )
