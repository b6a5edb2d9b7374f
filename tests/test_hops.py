"""How tests/hops.py counts, on code that is written for it; its numbers are not fixed here."""

import importlib.util
import sys

import pytest

from tests.hops import Hops, measure, report

INNER = """
def leaf():
    return [abs(number) for number in (1, 2)]
"""

OUTER = """
import dataclasses
from inner import leaf

@dataclasses.dataclass
class Box:
    value: object

    def open(self):
        return self.value()

def walk():
    return Box(leaf).open(), (lambda: len(leaf()))()
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "inner.py").write_text(INNER)
    (tmp_path / "outer.py").write_text(OUTER)
    (tmp_path / "unused.py").write_text("def never():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("inner", "outer"):
        sys.modules.pop(name, None)


def load(folder, name):
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_files_are_counted_once_in_the_order_in_which_they_are_entered(package):
    hops = measure(load(package, "outer").walk, package)
    assert hops.files == ("outer.py", "inner.py")


def test_functions_have_names_and_every_open_frame_is_in_the_chain(package):
    hops = measure(load(package, "outer").walk, package)
    assert hops.functions == 3  # walk, Box.open, leaf
    assert hops.chain == 4  # walk, Box.open or the lambda, leaf, and the comprehension in it


def test_importing_a_file_does_not_enter_it(package):
    assert measure(lambda: load(package, "outer"), package).files == ()


def test_the_profile_that_was_set_before_is_set_after(package):
    def failing():
        raise KeyError

    before = sys.getprofile()
    with pytest.raises(KeyError):
        measure(failing, package)
    assert sys.getprofile() is before


def test_the_last_line_of_a_report_has_the_numbers():
    trips = {
        "chunk": Hops(files=("a.py", "b.py"), functions=5, chain=3),
        "dmd generator step": Hops(files=("a.py",), functions=2, chain=1),
    }
    assert report(trips).splitlines()[-1] == "files entered: chunk 2, dmd generator step 1"
    assert "b.py" not in report(trips)
    assert report(trips, listed=True).count("    a.py") == 2
