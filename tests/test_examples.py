"""The examples run as a reader runs them: scripts as programs, the notebook cell by cell."""

import ast
import json
import runpy
import sys

import numpy as np
import pytest
from PIL import Image

from tests.docs.blocks import ROOT, workspace

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
def folder(tmp_path):
    with workspace(tmp_path):
        yield tmp_path


def run_script(name: str, monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


def test_a_story_becomes_a_film_and_a_contact_sheet(folder, monkeypatch):
    run_script("film_a_story.py", monkeypatch, "mine")
    assert (folder / "mine" / "film.mp4").stat().st_size > 1000
    with Image.open(folder / "mine" / "contact.png") as sheet:
        assert np.asarray(sheet).std() > 10


def test_chunks_are_streamed_and_timed(folder, monkeypatch, capsys):
    run_script("stream_chunks.py", monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" after ")[0] for line in lines] == [
        f"shot {shot}, chunk {chunk}: {frames} frames"
        for shot in range(3)
        for chunk, frames in ((0, 9), (1, 12))
    ]


def test_a_state_is_a_value(folder, monkeypatch, capsys):
    run_script("one_shot_two_endings.py", monkeypatch)
    differences = {
        line.split(" differs by ")[0]: float(line.split(" differs by ")[1])
        for line in capsys.readouterr().out.splitlines()
        if " differs by " in line
    }
    assert differences["the same ending twice"] == 0
    assert differences["the ending after a replay"] == 0
    assert differences["another caption's ending"] > 0.1


def run_cells(notebook: dict, place: str) -> list[object]:
    """Run the cells of a notebook in one namespace; returns what each would show."""
    names: dict[str, object] = {"__name__": "__main__"}
    shown = []
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]), f"{place}, cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{place}, cell {number}", "exec"), names)
        value = ast.Expression(last.value) if last else ast.Expression(ast.Constant(None))
        shown.append(eval(compile(ast.fix_missing_locations(value), place, "eval"), names))
    return shown


def test_the_notebook_directs_and_shows_its_films(folder):
    notebook = json.loads((ROOT / "examples" / "direct_a_story.ipynb").read_text(encoding="utf-8"))
    shown = run_cells(notebook, "direct_a_story.ipynb")
    films = [np.asarray(value) for value in shown if isinstance(value, Image.Image)]
    assert len(films) == 3
    assert all(film.std() > 10 for film in films)
    assert not np.array_equal(films[0], films[1])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_kept_without_output(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


def test_every_example_is_listed_and_run():
    listed = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    tests = (ROOT / "tests" / "test_examples.py").read_text(encoding="utf-8")
    for path in (*SCRIPTS, *NOTEBOOKS):
        assert f"`{path.name}`" in listed
        assert f'"{path.name}"' in tests
