"""The command: experiment files, overrides and what is said when they are wrong."""

import json
import pathlib
import signal

import pytest

from shotstream_jax.cli.train import load_experiment, override, train
from shotstream_jax.train import loop

TOY = pathlib.Path(__file__).parents[1] / "train" / "toy_training.py"


@pytest.fixture
def experiment(tmp_path):
    """An experiment file whose run is a toy."""
    path = tmp_path / "tiny_toy.py"
    path.write_text(
        f"import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('toy_training', {str(TOY)!r})\n"
        f"toy = sys.modules.setdefault('toy_training', importlib.util.module_from_spec(spec))\n"
        f"hasattr(toy, 'toy') or spec.loader.exec_module(toy)\n"
        f"config = toy.toy({str(tmp_path / 'run')!r}, steps=4)\n"
    )
    return path


def test_it_trains_resumes_and_says_so(experiment, tmp_path, capsys):
    assert train([str(experiment), "--log-every", "1"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "step 4/4" in said.err
    assert "hare/loss" in said.err
    assert "export is ready" in said.err
    assert train([str(experiment), "--steps", "6", "--resume"]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 6]


def test_a_run_is_not_written_over_unasked(experiment):
    assert train([str(experiment)]) == 0
    with pytest.raises(ValueError, match="--resume"):
        train([str(experiment)])
    assert train([str(experiment), "--overwrite"]) == 0
    with pytest.raises(ValueError, match="opposites"):
        train([str(experiment), "--overwrite", "--resume"])


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
    assert train([str(experiment)]) == status
    assert "--resume goes on" in capsys.readouterr().err


def test_divergence_has_a_status_of_its_own(experiment, capsys):
    assert train([str(experiment), "--bad", "0", "1", "2", "3", "--steps", "9"]) == 43
    assert "no finite gradient for 3 steps" in capsys.readouterr().err


def test_overrides_reach_every_setting(experiment):
    config = override(
        load_experiment(experiment),
        ["--optimizer.learning-rate", "1e-4", "--mesh.fsdp=2", "--optimizer.clip", "None"],
    )
    assert config.optimizer.learning_rate == 1e-4
    assert config.optimizer.clip is None
    assert config.mesh.fsdp == 2
    assert config.steps == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stepz", "3"], r"no setting --stepz; did you mean --steps\?"),
        (["--optimizer.lerning-rate", "3"], r"did you mean --optimizer\.learning-rate\?"),
        (["--steps", "ten"], r"--steps.*'ten'"),
        (["--steps"], r"Missing value for argument '--steps'"),
        (["--steps", "0"], r"steps is 0 and must be 1 or more"),
        (["--optimizer.learning-rate=-1"], r"learning_rate -1 is not a positive number"),
        (["7"], r"'7' comes before any --setting"),
    ],
)
def test_overrides_that_will_not_do(experiment, words, message, capsys):
    with pytest.raises(ValueError, match=message) as error:
        override(load_experiment(experiment), words)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().err == ""


def test_a_missing_file_names_its_neighbour(experiment):
    with pytest.raises(ValueError, match=r"did you mean .*tiny_toy\.py\?"):
        load_experiment(experiment.with_name("tiny_toi.py"))


def test_a_file_without_settings_is_refused(tmp_path):
    path = tmp_path / "empty.py"
    path.write_text("config = 3\n")
    with pytest.raises(ValueError, match="defines config as int"):
        load_experiment(path)


def test_help_lists_the_settings_of_a_file(experiment, capsys):
    with pytest.raises(SystemExit) as stop:
        train([str(experiment), "--help"])
    assert stop.value.code == 0
    assert "--optimizer.learning-rate" in capsys.readouterr().out
