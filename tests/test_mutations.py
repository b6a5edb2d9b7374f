"""The committed mutations: they apply to the package as it is, and a stale one is refused."""

import dataclasses

import pytest

from tests import mutations
from tests.mutations import ROOT, Mutation, load_mutations


def test_every_mutation_applies_and_names_tests_that_are_there():
    known = load_mutations()
    assert len(known) >= 60
    for mutation in known:
        assert mutation.applied(ROOT) != (ROOT / mutations.PACKAGE / mutation.file).read_text()
        for test in mutation.tests:
            file, _, node = test.partition("::")
            *within, name = node.split("[")[0].split("::")
            text = (ROOT / file).read_text()
            # A test of a class is found by both names, or pytest would not find it.
            held = (
                text.partition(f"class {within[0]}")[2].partition("\nclass ")[0] if within else text
            )
            assert not node or f"def {name}(" in held, test


@pytest.fixture
def tree(tmp_path):
    """A package of one line with a test that sees it, and one that does not look."""
    (tmp_path / mutations.PACKAGE).mkdir()
    (tmp_path / mutations.PACKAGE / "__init__.py").touch()
    (tmp_path / mutations.PACKAGE / "sums.py").write_text("TWO = 1 + 1\n")
    (tmp_path / "test_sums.py").write_text(
        "from shotstream_jax.sums import TWO\n\n"
        "def test_sees():\n    assert TWO == 2\n\n"
        "def test_blind():\n    assert TWO\n\n"
        "def test_slow():\n    import time\n    time.sleep(900 * (TWO - 2))\n"
    )
    return tmp_path


@pytest.fixture
def fault():
    return Mutation(
        name="a_fault",
        file="sums.py",
        old="1 + 1",
        new="1 + 2",
        tests=("test_sums.py::test_sees",),
        meaning="two is three",
    )


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({}, "killed"),
        ({"tests": ("test_sums.py::test_blind",)}, "survived"),
        ({"new": "1 + "}, "broken"),
        ({"tests": ("test_sums.py::test_slow",)}, "timed out"),
    ],
    ids=["killed", "survived", "broken", "timed out"],
)
def test_the_verdict_is_that_of_the_tests_and_the_fault_is_undone(tree, fault, change, outcome):
    limit = 3 if outcome == "timed out" else 600
    verdict = mutations.judge(dataclasses.replace(fault, **change), tree, limit)
    assert verdict.outcome == outcome, verdict.by
    assert (tree / mutations.PACKAGE / "sums.py").read_text() == "TWO = 1 + 1\n"
    assert mutations.run_tests(tree, ["test_sums.py"], limit=600)[0] == mutations.PASSED


def test_a_stale_mutation_is_refused_by_name(tree, fault):
    with pytest.raises(ValueError, match=r"Mutation a_fault is stale: .* 0 times in .*sums\.py"):
        dataclasses.replace(fault, old="2 + 2").applied(tree)
    with pytest.raises(ValueError, match="found 2 times"):
        dataclasses.replace(fault, old="1").applied(tree)


def test_a_sample_is_the_same_for_the_same_seed():
    known = load_mutations()
    draws = [
        mutations.choose(known, mutations.parse(["--sample", "5", "--seed", seed]))
        for seed in ("1", "1", "2")
    ]
    assert draws[0] == draws[1] != draws[2]
    assert len(draws[0]) == 5
    with pytest.raises(ValueError, match="No mutation not_there"):
        mutations.choose(known, mutations.parse(["--only", "not_there"]))
