"""`shotstream plan`: what it prints, the table that it makes, and what it refuses."""

import importlib.util
import json

import pytest

from shotstream_jax.cli import plan as verb
from shotstream_jax.cli.plan import PlanOptions, markdown, parse_size

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="pip install -e .[aot] brings the compiler"
)
SMALL = ("--preset", "tiny", "--size", "48x80", "--chunks", "1")


def row(**changes):
    """A film plan, as JSON has it."""
    memory = {"arguments": 4 << 30, "temporaries": 1 << 30, "outputs": 0, "code": 1 << 28}
    return {
        "preset": "tiny",
        "target": "v6e:1x1",
        "mesh": {"tensor": 2},
        "fits": True,
        "memory": {**memory, "peak": sum(memory.values()), "limit": 16 << 30},
        "programs": {"chunk": {"fits": True}},
        "share_of_peak": 0.4,
        "projection": {"frames_per_second": 21.25},
        **changes,
    }


@needs_compiler
def test_a_program_says_whether_it_fits(run):
    status, out, _ = run(
        "plan", *SMALL, "--program", "decode-first", "--target", "v5e:1x1", "--json"
    )
    found = json.loads(out)
    assert status == 0
    assert found["fits"] is True
    assert {"arguments", "temporaries", "code", "limit", "peak"} <= found["memory"].keys()
    assert found["flops"]["analytic"] > 0
    assert found["projection"]["assumption"].startswith("not measured: 40% of the peak")


@needs_compiler
def test_8_bits_take_less_memory(run):
    asked = ("plan", *SMALL, "--program", "commit", "--target", "v5e:1x1", "--json")
    exact, held = (
        json.loads(run(*asked, *more)[1])
        for more in ((), ("--approximate", "int8-cache", "int8-weights"))
    )
    for name in ("dit", "cache"):
        assert held["argument_bytes"][name] < 0.8 * exact["argument_bytes"][name]
    assert held["approximate"] == ["int8-cache", "int8-weights"]


@needs_compiler
def test_a_person_reads_a_table(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    status, out, _ = run("plan", *SMALL, "--program", "decode-first", "--target", "v5e:1x1")
    assert status == 0
    assert "tiny on v5e:1x1, one device; 48 x 80, bfloat16" in out
    assert "projections, not measurements" in out


def test_the_table_is_made_of_plans_that_are_kept(run, tmp_path, monkeypatch):
    made = []

    def make_plan(options: PlanOptions):
        made.append((options.preset, options.target, options.approximate))
        return row(preset=options.preset, target=options.target, approximate=options.approximate)

    monkeypatch.setattr(verb, "make_plan", make_plan)
    assert run("plan", "--table", tmp_path)[0] == 0
    assert made == list(verb.TABLE)
    (tmp_path / "wan-14b_v5p-2x2x1.json").unlink()
    assert run("plan", "--table", tmp_path)[0] == 0
    assert made[len(verb.TABLE) :] == [("wan-14b", "v5p:2x2x1", ())]
    lines = (tmp_path / "plans.md").read_text().splitlines()
    assert len(lines) == 2 + len(verb.TABLE)
    assert "| tensor=2 |  | yes | 4.00 | 1.00 | 0.25 | 5.25 | 16.00 | 21.2 |" in lines[2]
    assert "| tensor=2 | cache, weights | yes |" in lines[3]


def test_a_table_of_another_assumption_is_refused(refused, run, tmp_path, monkeypatch):
    monkeypatch.setattr(verb, "make_plan", lambda options: row())
    run("plan", "--table", tmp_path)
    said = refused("plan", "--table", tmp_path, "--share-of-peak", "0.5")
    assert "assumes 40% of peak, not 50%" in said


def test_what_does_not_fit_has_no_rate():
    lost = row(fits=False, programs={"chunk": {"fits": False}})
    assert "| no | 4.00 | - | - | > 5.25 | 16.00 | - |" in markdown([lost], 0.4)


@pytest.mark.parametrize("text", ["480", "480x", "480 x 832", "480x832x3", "-1x2"])
def test_sizes_are_height_by_width(text):
    assert parse_size("480x832") == (480, 832)
    with pytest.raises(ValueError, match="is not understood"):
        parse_size(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "v9:1x1"), "'v9:1x1' is unknown"),
        (("--size", "50x80"), "50"),
        (("--mesh", "rows=2"), "Mesh 'rows=2'"),
        (("--share-of-peak", "0"), "A share of peak of 0"),
        (("--experiment", "nowhere.py"), "There is no file nowhere.py"),
    ],
)
@needs_compiler
def test_bad_input_is_refused(refused, options, message):
    assert message in refused("plan", *SMALL, "--program", "decode-first", *options)
