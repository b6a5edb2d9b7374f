"""The command: experiment files, overrides and what is said when they are wrong."""

import json
import re
import signal

import pytest

from shotstream_jax.cli.exit_codes import ExitCode
from shotstream_jax.cli.train import load_experiment, override, train_command
from shotstream_jax.train.engine import loop

FINISHED = "export is ready"


@pytest.fixture
def experiment(tmp_path):
    """An experiment file whose run is a toy."""
    return write_toy(tmp_path / "tiny_toy.py", tmp_path / "run")


def write_toy(path, output, steps=4):
    path.write_text(
        "from tests.train.engine.toy_training import toy\n"
        f"config = toy({str(output)!r}, steps={steps})\n"
    )
    return path


@pytest.fixture
def pipeline(tmp_path):
    """An experiment file that lists two others."""
    for name in ("first", "second"):
        write_toy(tmp_path / f"{name}.py", tmp_path / name)
    path = tmp_path / "all.py"
    path.write_text(
        "import pathlib\n"
        "from shotstream_jax.train.engine.pipeline import Pipeline\n"
        "config = Pipeline(stages=(pathlib.Path('first.py'), pathlib.Path('second.py')))\n"
    )
    return path


def test_it_trains_resumes_and_says_so(experiment, tmp_path, capsys):
    assert train_command([str(experiment), "--log-every", "1"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "step 4/4" in said.err
    assert "hare/loss" in said.err
    assert "export is ready" in said.err
    assert train_command([str(experiment), "--steps", "6", "--resume"]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 6]


def test_a_run_is_not_written_over_unasked(experiment):
    assert train_command([str(experiment)]) == 0
    with pytest.raises(ValueError, match="--resume"):
        train_command([str(experiment)])
    assert train_command([str(experiment), "--overwrite"]) == 0
    with pytest.raises(ValueError, match="opposites"):
        train_command([str(experiment), "--overwrite", "--resume"])


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=str
)
def test_exit_status_says_what_stopped_it(experiment, monkeypatch, number, status, capsys):
    real = loop.train

    def interrupted(config, *, existing, watch):
        del watch
        signals = iter([number])

        def once(progress):
            for number in signals:
                signal.raise_signal(number)

        return real(config, existing=existing, watch=once)

    monkeypatch.setattr(loop, "train", interrupted)
    assert train_command([str(experiment)]) == status
    assert "--resume goes on" in capsys.readouterr().err


def test_divergence_has_a_status_of_its_own(experiment, capsys):
    assert train_command([str(experiment), "--bad", "0", "1", "2", "3", "--steps", "9"]) == 43
    assert "too many steps in a row without a finite gradient" in capsys.readouterr().err


def test_overrides_reach_every_setting(experiment):
    config = override(
        load_experiment(experiment),
        ["--optimizer.learning-rate", "1e-4", "--mesh.fsdp=2", "--optimizer.clip", "None"],
        experiment,
    )
    assert config.optimizer.learning_rate == 1e-4
    assert config.optimizer.clip is None
    assert config.mesh.fsdp == 2
    assert config.steps == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stepz", "3"], r"Unrecognized options: --stepz.*Perhaps you meant.* --steps "),
        (["--optimizer.lerning-rate", "3"], r"you meant.* --optimizer\.learning-rate "),
        (["--steps", "ten"], r"--steps.*'ten'"),
        (["--steps"], r"Missing value for argument '--steps'"),
        (["--steps", "0"], r"steps is 0 and must be 1 or more"),
        (["--optimizer.learning-rate=-1"], r"learning_rate -1 is not a positive number"),
        (["7"], r"Unrecognized options: 7"),
    ],
)
def test_wrong_overrides_are_one_message_and_exit_status_2(
    experiment, tmp_path, words, message, capsys
):
    with pytest.raises(SystemExit) as stop:
        train_command([str(experiment), *words])
    assert stop.value.code == ExitCode.BAD_INPUT
    said = capsys.readouterr()
    assert re.search(message, " ".join(said.err.split()))
    assert said.out == ""
    assert not (tmp_path / "run").exists()


def test_a_missing_file_names_its_neighbour(experiment):
    with pytest.raises(ValueError, match=r"did you mean .*tiny_toy\.py\?"):
        load_experiment(experiment.with_name("tiny_toi.py"))


def test_a_file_without_settings_is_refused(tmp_path):
    path = tmp_path / "empty.py"
    path.write_text("config = 3\n")
    with pytest.raises(
        ValueError, match="defines config as int; one of Training, DatasetJob, Pipeline is needed"
    ):
        load_experiment(path)


def test_help_lists_the_settings_of_a_file(experiment, capsys):
    for words in (["--help"], ["--steps", "3", "-h"], ["-h", "--resume"]):
        with pytest.raises(SystemExit) as stop:
            train_command([str(experiment), *words])
        assert stop.value.code == 0
        assert "--optimizer.learning-rate" in capsys.readouterr().out


def test_help_without_a_file_is_about_the_command(capsys):
    with pytest.raises(SystemExit) as stop:
        train_command(["--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "--overwrite" in said
    assert "--optimizer" not in said


def test_a_pipeline_runs_what_is_not_done(pipeline, tmp_path, capsys):
    assert train_command([str(tmp_path / "first.py")]) == 0
    capsys.readouterr()
    assert train_command([str(pipeline), "--resume"]) == 0
    said = capsys.readouterr().err
    assert "Stage 1 of 2, first.py: done before." in said
    assert "Stage 2 of 2, second.py:" in said
    assert said.count(FINISHED) == 1
    assert train_command([str(pipeline), "--resume"]) == 0
    assert FINISHED not in capsys.readouterr().err


def test_a_pipeline_ends_at_a_stage_that_does_not_finish(pipeline, tmp_path, capsys):
    script = (tmp_path / "first.py").read_text().replace("steps=4", "steps=9, bad=(0, 1, 2, 3)")
    (tmp_path / "first.py").write_text(script)
    assert train_command([str(pipeline)]) == 43
    assert "Stage 2" not in capsys.readouterr().err
    assert not (tmp_path / "second").exists()


def test_a_pipeline_does_not_go_on_with_other_settings(pipeline, tmp_path):
    assert train_command([str(pipeline)]) == 0
    write_toy(tmp_path / "first.py", tmp_path / "first", steps=6)
    script = (tmp_path / "second.py").read_text().replace("steps=4", "steps=4, seed=8")
    (tmp_path / "second.py").write_text(script)
    with pytest.raises(ValueError, match="holds a run with seed 0, and it is 8 now"):
        train_command([str(pipeline), "--resume"])
    lines = (tmp_path / "first" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 6


def test_a_pipeline_of_pipelines_is_refused(pipeline, tmp_path):
    (tmp_path / "first.py").write_text(pipeline.read_text())
    with pytest.raises(ValueError, match=r"first\.py lists stages itself"):
        train_command([str(pipeline)])
