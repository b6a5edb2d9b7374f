"""One name means one thing over the whole package; and no sentence hides who does what.

Public names are read from the source: modules, and the classes, functions, constants and aliases at
their top level. `python -m tests.test_public_names` lists those that are defined more than once.
"""

import ast
import collections
import functools
import io
import pathlib
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "shotstream_jax"

FAMILIES: Mapping[str, str] = {
    "module causal_init": "an objective and the stage that trains by it",
    "module vae": "a network, its objective and its stage",
    "module teacher": "many-step inference, and the stage that trains what it samples",
    "module plan": "cli/ names a module after its verb",
}
"""Names that stand for one thing seen from several rooms: why each may have several modules."""

VAGUE = re.compile(r"\b(somebody|nobody|whoever|anybody)\b", re.IGNORECASE)


def sources() -> Iterator[tuple[str, str]]:
    """Path below the package and text of every module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")


def public_names(text: str) -> Iterator[tuple[str, int]]:
    """Names without a leading underscore at the top level of a module, and their lines."""
    for node in ast.parse(text).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                found = [node.name]
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar"))):
                found = []  # a type variable says nothing outside its module
            case ast.Assign():
                found = [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                found = [name]
            case _:
                found = []
        yield from ((name, node.lineno) for name in found if not name.startswith("_"))


def duplicates(modules: Mapping[str, str]) -> dict[str, list[str]]:
    """Every public name that has several definitions, and where they are."""
    places: dict[str, list[str]] = collections.defaultdict(list)
    for path, text in modules.items():
        stem = pathlib.PurePosixPath(path).stem
        if stem != "__init__":
            places[f"module {stem}"].append(path)
        for name, line in public_names(text):
            places[name].append(f"{path}:{line}")
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def listed(found: Mapping[str, list[str]]) -> str:
    """Duplicates, one name a line."""
    return "\n".join(f"{name}: {', '.join(places)}" for name, places in found.items())


@functools.cache
def in_the_package() -> dict[str, list[str]]:
    """Duplicates of the package."""
    return duplicates(dict(sources()))


def test_no_public_name_means_two_things():
    odd = {name: places for name, places in in_the_package().items() if name not in FAMILIES}
    assert not odd, f"rename all but one of each, or import it:\n{listed(odd)}"


def test_every_family_has_several_modules():
    gone = FAMILIES.keys() - in_the_package().keys()
    assert not gone, f"no longer defined twice; take off the list: {sorted(gone)}"


def test_a_name_defined_in_two_modules_is_found():
    modules = {
        "a/one.py": "Report = int\ndef made(): ...\n_private = 1\n",
        "b/one.py": "class Report: ...\n_private = 2\n",
        "b/two.py": "from a.one import made\nT = TypeVar('T')\nX: int = 1\nX2, Y = 1, 2\n",
        "b/__init__.py": "from b.one import Report\n",
    }
    assert duplicates(modules) == {
        "Report": ["a/one.py:1", "b/one.py:1"],
        "module one": ["a/one.py", "b/one.py"],
    }
    assert [name for name, _ in public_names(modules["b/two.py"])] == ["X", "X2", "Y"]


def test_sentences_name_who_does_something():
    vague = [
        f"{path}:{line}: {match[0]}"
        for path, text in sources()
        for line, words in prose(text)
        if (match := VAGUE.search(words))
    ]
    assert not vague, "say which function, person or program:\n" + "\n".join(vague)


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Lines of comments and of strings that stand alone, as docstrings do."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str() as words)):
                yield from enumerate(words.split("\n"), node.lineno)


def test_prose_is_docstrings_and_comments_and_not_data():
    text = '"""Somebody."""\nx = "nobody"  # whoever\n"""\nof x, anybody\n"""\n'
    found = {line for line, words in prose(text) if VAGUE.search(words)}
    assert found == {1, 2, 4}


if __name__ == "__main__":
    sys.stdout.write(listed(in_the_package()) + "\n")
