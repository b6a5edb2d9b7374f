"""What README.md, docs/ and CONTRIBUTING.md name is there: files, functions, modules, links."""

import ast
import importlib
import pathlib
import re

import pytest

from tests.docs.blocks import PAGES, ROOT

WRITTEN = [*PAGES, ROOT / "CONTRIBUTING.md"]
PACKAGE = ROOT / "shotstream_jax"

_FILE = re.compile(
    r"(?<![\w/.-])((?:[\w*-]+/)*[\w*-]+\.(?:py|sh|yaml|ipynb))(?!\w)(?::([A-Za-z_][\w.]*))?"
)
_DOTTED = re.compile(r"(?<![\w/.])shotstream_jax(?:\.\w+)+")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")

MADE = {"story.yaml", "mine.yaml", "manifest.json"}
"""Files that a reader makes: named, but not in the repository."""


def find_file(name: str) -> pathlib.Path | None:
    """A file named from the repository's root, or from the package's."""
    for base in (ROOT, PACKAGE):
        found = sorted(base.glob(name))
        if found:
            return found[0]
    return None


def defined_in(path: pathlib.Path) -> set[str]:
    """Functions, classes, methods and constants that a module defines."""
    names: set[str] = set()

    def collect(body: list[ast.stmt], before: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(before + node.name)
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{node.name}.")
            if isinstance(node, ast.Assign):
                names.update(before + t.id for t in node.targets if isinstance(t, ast.Name))
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(before + node.target.id)

    collect(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return names


def missing_files(text: str) -> list[str]:
    """Files and `file.py:names` of a text that are not there."""
    missing = []
    for name, member in _FILE.findall(text):
        path = find_file(name)
        if path is None:
            missing += [] if pathlib.PurePath(name).name in MADE else [name]
        elif member and path.suffix == ".py" and member.rstrip(".") not in defined_in(path):
            missing.append(f"{name}:{member}")
    return missing


def missing_modules(text: str) -> list[str]:
    """Dotted names of a text that cannot be imported."""
    return [name for name in _DOTTED.findall(text) if not _is_importable(name)]


def _is_importable(name: str) -> bool:
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part, None)
        return found is not None
    return False


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    assert not missing_files(text)
    assert not missing_modules(text)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if not link.startswith(("http://", "https://")):
            assert (page.parent / link).exists(), link


def test_a_name_that_is_gone_is_found():
    text = (
        "`rollout/chunk.py:denoise_chunk`, `rollout/chunk.py:gone`, `rollout/gone.py`, story.yaml"
    )
    assert missing_files(text) == ["rollout/chunk.py:gone", "rollout/gone.py"]
    text = "shotstream_jax.open_model shotstream_jax.rollout.chunk.gone shotstream_jax.gone"
    assert missing_modules(text) == ["shotstream_jax.rollout.chunk.gone", "shotstream_jax.gone"]
