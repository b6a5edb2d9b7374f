"""`shotstream eval --table`: what is missing is trained and judged, then all is set in a table."""

import json
import pathlib

import pytest

from shotstream_jax.cli.comparison_table import find_table, make_table, stored
from shotstream_jax.evaluation.eval_options import EvalOptions, command_line
from shotstream_jax.evaluation.table import Row, Table, comparison_markdown

ROWS = tuple(
    Row(name=name, experiment=pathlib.Path(f"{file}.py"), options=EvalOptions(stories=3))
    for name, file in (("As it is", "one"), ("no context, at all", "two"))
)


def found(value: float) -> dict:
    return {"metrics": {"carry_over": value}, "intervals": {"carry_over": [value - 0.1, value]}}


@pytest.fixture
def file(tmp_path):
    """A table file whose `config` is put there by a test."""
    path = tmp_path / "table.py"
    path.write_text(
        "import pathlib\n"
        "from shotstream_jax.evaluation.eval_options import EvalOptions\n"
        "from shotstream_jax.evaluation.table import Row, Table\n"
        "config = Table(\n"
        f"    output=pathlib.Path({str(tmp_path / 'out')!r}),\n"
        "    columns={'carry_over': 'carry-over', 'drift': 'drift'},\n"
        "    prerequisites=(pathlib.Path('zero.py'),),\n"
        "    rows=(\n"
        "        Row(name='As it is', experiment=pathlib.Path('one.py'), options=EvalOptions()),\n"
        "        Row(name='no context', experiment=pathlib.Path('two.py'),\n"
        "            options=EvalOptions(no_context=True)),\n"
        "    ),\n"
        ")\n"
    )
    return path


def test_rows_are_trained_in_order_and_judged_each_in_its_folder(file, tmp_path):
    trained, judged = [], []

    def train(path):
        trained.append(path.name)
        return 0, tmp_path / "runs" / path.stem

    def judge(args):
        judged.append(args)
        return found(0.5 + 0.25 * len(judged))

    status, made = make_table(file, train, judge)
    assert status == 0
    assert trained == ["zero.py", "one.py", "two.py"]
    assert [args.checkpoint for args in judged] == [
        tmp_path / "runs" / name / "export" for name in ("one", "two")
    ]
    assert [args.output.name for args in judged] == ["as_it_is", "no_context"]
    assert [args.no_context for args in judged] == [False, True]
    assert made.read_text() == (
        "|  | carry-over | drift |\n"
        "| --- | ---: | ---: |\n"
        "| As it is | 0.750 (0.650 to 0.750) |  |\n"
        "| no context | 1.000 (0.900 to 1.000) |  |\n"
    )


def test_a_training_that_does_not_finish_ends_it(file, tmp_path):
    def train(path):
        return (143 if path.name == "two.py" else 0), tmp_path

    judged = []

    def judge(args):
        judged.append(args)
        return found(1.0)

    assert make_table(file, train, judge) == (143, None)
    assert len(judged) == 1
    assert not (tmp_path / "out" / "table.md").exists()


def test_what_was_judged_by_the_same_command_is_kept(tmp_path):
    args = EvalOptions(stories=3, output=tmp_path)
    assert stored(tmp_path, command_line(args)) is None
    document = {**found(0.5), "command": command_line(args)}
    (tmp_path / "metrics.json").write_text(json.dumps(document))
    assert stored(tmp_path, command_line(args)) == document
    assert stored(tmp_path, command_line(EvalOptions(stories=4, output=tmp_path))) is None


def test_a_table_is_found_by_name_or_by_path():
    assert find_table("ablations") == pathlib.Path("configs/ablations.py")
    assert find_table("my/table.py") == pathlib.Path("my/table.py")


def test_every_row_has_its_numbers():
    table = Table(output=pathlib.Path(), columns={"carry_over": "kept"}, rows=ROWS)
    lines = comparison_markdown(table, [found(0.5), found(0.7)]).splitlines()
    assert lines[0] == "|  | kept |"
    assert lines[2:] == [
        "| As it is | 0.500 (0.400 to 0.500) |",
        "| no context, at all | 0.700 (0.600 to 0.700) |",
    ]


def test_other_options_are_the_files(refused):
    assert "give it alone" in refused("eval", "--table", "ablations", "--stories", "3")
    assert "There is no file configs/ablation.py" in refused("eval", "--table", "ablation")
