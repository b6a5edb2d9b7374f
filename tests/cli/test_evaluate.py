"""`shotstream eval`: what it prints and writes, and what it refuses."""

import json

import numpy as np
import pytest
import tyro
from PIL import Image

from shotstream_jax.cli.evaluate import evaluate
from shotstream_jax.evaluation.eval_options import EvalOptions, command_line

SMALL = ("--stories", "2", "--shots", "2", "--size", "32", "48", "--video-frames", "9")


@pytest.fixture
def judge(capsys):
    """Run the command; returns what it printed, and what it said beside."""

    def call(*arguments: object) -> tuple[str, str]:
        tyro.cli(evaluate, args=[*SMALL, *map(str, arguments)])
        said = capsys.readouterr()
        return said.out, said.err

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What is written of the miniature's student; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("eval") / "new" / "student"
    tyro.cli(evaluate, args=[*SMALL, "--seed", "3", "--output", str(folder)])
    return folder


@pytest.fixture(scope="module")
def document(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_every_metric_is_a_number_with_its_interval(document):
    metrics, intervals = document["metrics"], document["intervals"]
    assert metrics.keys() == intervals.keys()
    assert metrics.keys() >= {
        *("prompt_accuracy", "carry_over", "cut_accuracy", "identity", "flicker", "motion"),
        *("oracle_accuracy", "carry_over_chance", "carry_over_no_context", "carry_over_own"),
        *("drift", "prompt_accuracy/shape", "carry_over/trim", "carry_over/shot_2"),
    }
    for name, value in metrics.items():
        low, high = intervals[name]
        assert low <= value <= high, name
    assert metrics["carry_over_chance"] == 0.25


def test_what_was_measured_is_told(document):
    assert (document["stories"], document["shots"], document["seed"]) == (2, [2], 3)
    assert (document["split"], document["role"], document["size"]) == ("test", "student", [32, 48])
    assert document["weights"] == "trained"
    assert len(document["digest"]) == 16
    assert document["passes"] == {
        "own": {"given": 0, "context": True},
        "given": {"given": 1, "context": True},
        "no_context": {"given": 1, "context": False},
    }
    assert document["seconds"] > 0
    assert document["frames_per_second"] > 0


def test_the_command_makes_the_same_again(document, folder):
    program, verb, *options = document["command"]
    assert (program, verb) == ("shotstream", "eval")
    again = tyro.cli(EvalOptions, args=options)
    assert (again.stories, again.seed, again.output) == (2, 3, folder)
    assert command_line(again) == document["command"]


def test_the_first_films_are_on_a_sheet(folder):
    sheet = np.asarray(Image.open(folder / "contact.png"))
    assert sheet.shape[0] > 4 * 32
    assert sheet.std() > 10


def test_json_is_all_that_is_printed(judge):
    out, err = judge("--role", "true", "--json")
    document = json.loads(out)
    assert document["role"] == "true"
    assert document["passes"] == {"own": {"given": 0, "context": True}}
    assert document["metrics"]["identity"] == 1
    assert document["metrics"]["prompt_accuracy"] > 0.9
    assert "carry_over_no_context" not in document["metrics"]
    assert "2 test stories of 2 shots, 32 x 48: true films." in err
    assert "4/4 films scored (own)" in err


def test_a_person_reads_a_table(judge, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    rows = [line.strip() for line in judge("--role", "true")[0].splitlines()]
    assert [word for row in rows if row.startswith("cut accuracy") for word in row.split()] == [
        *("cut", "accuracy", "1.000", "1.000")
    ]
    carried = next(n for n, row in enumerate(rows) if row.startswith("carry-over "))
    assert [row[:6].strip() for row in rows[carried + 1 : carried + 4]] == ["trim", "sky", "shot 2"]
    assert any(row.startswith("carry-over, chance") and row.endswith("0.250") for row in rows)


@pytest.mark.parametrize("role", ["teacher", "autoencoder"])
def test_other_roles_are_judged_the_same_way(judge, role):
    options = ("--steps", 2, "--guidance", 2, "--batch", 2) if role == "teacher" else ()
    out, err = judge("--role", role, *options, "--json")
    document = json.loads(out)
    assert f"32 x 48: {role} of tiny." in err
    assert document["role"] == role
    assert ("no_context" in document["passes"]) is (role == "teacher")
    assert document["metrics"]["oracle_accuracy"] > 0.9


def test_random_weights_are_called_so(judge, untrained):
    out, err = judge("--checkpoint", untrained, "--no-context", "--given", 0, "--json")
    assert f"student of {untrained}, random weights." in err
    assert json.loads(out)["weights"] == "random"


def test_without_context_nothing_is_compared(judge):
    out, _ = judge("--no-context", "--given", 0, "--json")
    document = json.loads(out)
    assert document["passes"] == {"own": {"given": 0, "context": False}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stories", 0), "0 stories leave nothing to measure; ask for 1 or more"),
        (("--shots", 3, 17), "Stories of 3 17 shots: each needs 2 to 16"),
        (("--shots", 1), "Stories of 1 shots"),
        (("--seed", -1), "seed of -1"),
        (("--size", 40, 48), "40x48 pixels does not tile"),
        (("--video-frames", 8), "Shots of 8 video frames are not whole chunks of 3"),
        (("--given", 2), "2 shots are to be given in stories of 2; give 0 to 1"),
        (
            ("--role", "teacher", "--approximate", "int8-cache"),
            "--approximate is for the student and the role is teacher",
        ),
        (("--history-guidance",), "--history-guidance is for the teacher"),
        (("--guidance", 3), "--guidance is for the teacher and the role is student"),
        (("--role", "teacher", "--steps", 0), "0 steps make no film"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(ValueError, match=message) as refusal:
        tyro.cli(evaluate, args=[*SMALL, *map(str, options)])
    assert "\n" not in str(refusal.value)


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tyro.cli(evaluate, args=[*SMALL, "--checkpoint", str(tmp_path / "none")])


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        tyro.cli(evaluate, args=[*SMALL, "--output", str(tmp_path / "file")])
