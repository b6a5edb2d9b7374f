"""The loop: stopping and going on changes nothing, bad numbers are survived or end the run."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from shotstream_jax.train.engine.checkpoint import Store
from shotstream_jax.train.engine.compiled import build_programs, mesh_of
from shotstream_jax.train.engine.loop import train
from shotstream_jax.train.engine.metrics import read_metrics
from tests.train.engine.toy_training import toy

SCRIPT = pathlib.Path(__file__).with_name("toy_training.py")


def stop_at(step, number=signal.SIGTERM):
    """A watcher that sends this process a signal once."""
    sent = []

    def watch(progress):
        if progress.step == step and not sent:
            sent.append(os.kill(os.getpid(), number))

    return watch


def records(folder, name="metrics"):
    kept = read_metrics(folder, name)
    for record in kept:
        record.pop("steps_per_second", None)
    return kept


def final_state(training):
    mesh = mesh_of(training.mesh)
    programs = build_programs(training.stage(mesh), training, mesh)
    store = Store(training.output, training.keep)
    state, facts = store.restore(programs.shapes, programs.shardings, lambda facts: None)
    store.close()
    return state, facts


def exported(folder):
    with np.load(folder / "export" / "toy.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped."""
    training = toy(tmp_path_factory.mktemp("whole") / "run")
    outcome = train(training)
    assert outcome.ended == "finished"
    return training


def test_a_whole_run_leaves_its_records_scores_and_networks(whole):
    folder = whole.output
    metrics = records(folder)
    assert [record["step"] for record in metrics] == [2, 4, 6, 8, 10, 12]
    assert metrics[0]["hound/place"] == 0
    assert metrics[0]["hare/place"] == 1
    scores = records(folder, "validation")
    assert [record["step"] for record in scores] == [6, 12]
    assert 1 > scores[0]["distance"] > scores[1]["distance"]
    assert (folder / "validation" / "6.txt").exists()
    assert set(exported(folder)) == {"hare", "hound"}
    assert json.loads((folder / "run.json").read_text())["stage"] == "ToyTraining"
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert kept == ["000008", "000012"]


def test_turns_move_networks_as_often_as_they_come(whole):
    state, facts = final_state(whole)
    assert {name: int(count) for name, count in state.updates.items()} == {"hare": 8, "hound": 4}
    assert facts["data"] == {"place": 12}
    means = {name: np.asarray(tree["kernel"]) for name, tree in state.ema_params.items()}
    for name, exported_mean in exported(whole.output).items():
        np.testing.assert_array_equal(exported_mean, means[name])


def test_each_network_moves_at_its_own_steps_and_by_its_own_schedule(tmp_path):
    """hound 0, 3, 6, 9; hare 1, 2, 4, 5, ...: half a cosine over 4 updates, and one over 8.

    Step 4 has no update, and the hare's next one has its rate.
    """
    training = toy(tmp_path / "run", log_every=1, bad=(4,))
    train(training)
    by_step = records(training.output)
    for name, steps in {"hound": [0, 3, 6, 9], "hare": [1, 2, 4, 5, 7, 8, 10, 11]}.items():
        assert [r["step"] - 1 for r in by_step if f"{name}/learning_rate" in r] == steps
        rates = [r[f"{name}/learning_rate"] for r in by_step if f"{name}/learning_rate" in r]
        updates = [0, 1, 2, 3] if name == "hound" else [0, 1, 2, 2, 3, 4, 5, 6]
        expected = [0.025 * (1 + np.cos(np.pi * update / len(steps))) for update in updates]
        np.testing.assert_allclose(rates, expected, rtol=1e-5)


@pytest.mark.parametrize("step", [1, 5, 8])
def test_stopping_and_going_on_is_not_stopping(whole, tmp_path, step):
    training = toy(tmp_path / "run")
    outcome = train(training, watch=stop_at(step))
    assert (outcome.ended, outcome.signal) == ("stopped", signal.SIGTERM)
    assert step <= outcome.step < 12
    assert train(training, existing="resume").ended == "finished"
    expected, got = final_state(whole), final_state(training)
    for a, b in zip(jax.tree.leaves(expected[0]), jax.tree.leaves(got[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert records(training.output) == records(whole.output)
    assert records(training.output, "validation") == records(whole.output, "validation")


def test_ctrl_c_stops_in_good_order_and_twice_at_once(tmp_path):
    training = toy(tmp_path / "run")
    outcome = train(training, watch=stop_at(3, signal.SIGINT))
    assert (outcome.ended, outcome.signal) == ("stopped", signal.SIGINT)

    def impatient(progress):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(training, existing="resume", watch=impatient)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(whole, tmp_path):
    folder = tmp_path / "run"
    for last in (3, 7):
        args = [sys.executable, str(SCRIPT), str(folder), "12", str(last)]
        assert subprocess.run(args, capture_output=True, check=False).returncode == -signal.SIGKILL
    training = toy(folder, save_every=1)
    train(training, existing="resume")
    for name, array in exported(whole.output).items():
        np.testing.assert_array_equal(exported(folder)[name], array)
    assert records(folder) == records(whole.output)


def test_a_finished_run_that_is_resumed_finishes_again(whole):
    before = exported(whole.output)
    outcome = train(whole, existing="resume")
    assert (outcome.ended, outcome.step) == ("finished", 12)
    for name, array in exported(whole.output).items():
        np.testing.assert_array_equal(array, before[name])
    assert [record["step"] for record in records(whole.output)] == [2, 4, 6, 8, 10, 12]


def test_a_bad_batch_is_skipped_and_counted(tmp_path):
    training = toy(tmp_path / "run", bad=(4, 5))
    assert train(training).ended == "finished"
    state, _ = final_state(training)
    assert [int(state.skipped), int(state.skipped_in_row)] == [2, 0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    metrics = {record["step"]: record for record in records(training.output)}
    assert [metrics[step]["skipped"] for step in (4, 6, 12)] == [0, 2, 2]


def test_bad_batches_in_a_row_end_the_run_with_a_dump(tmp_path):
    training = toy(tmp_path / "run", bad=tuple(range(5, 12)))
    outcome = train(training)
    assert outcome.ended == "diverged"
    assert outcome.dump == tmp_path / "run" / "stopped_at_000008"
    report = json.loads((outcome.dump / "report.json").read_text())
    assert report["step"] == 8
    assert report["not_finite_in_batch"] == ["x"]
    assert report["metrics"]["skipped_in_row"] == "3.0"
    with np.load(outcome.dump / "batch.npz") as batch:
        assert batch["place"].tolist() == [7] * 4
    state, _ = final_state(training)
    assert int(state.step) == 4


def test_networks_that_are_not_good_enough_are_not_exported(tmp_path):
    training = toy(tmp_path / "run", good_enough=0.0)
    with pytest.raises(ValueError, match="too large"):
        train(training)
    assert not (tmp_path / "run" / "export").exists()
    assert int(final_state(training)[0].step) == 12
