"""Records sum up their steps, have increasing steps through kills and resumes, and are JSON."""

import json
import math

import pytest

from shotstream_jax.train.engine.metrics import (
    MeanAccumulator,
    MetricsWriter,
    TensorBoardWriter,
    read_metrics,
)


def test_an_interval_is_the_mean_of_the_steps_that_measured_something():
    interval = MeanAccumulator()
    interval.add({"a/loss": 1.0})
    interval.add({"b/loss": 5.0})
    interval.add({"a/loss": 2.0, "b/loss": math.nan})
    assert interval.means() == {"a/loss": 1.5, "b/loss": 5.0}


def test_an_interval_goes_on_where_it_was_noted():
    values = [0.1, 0.2, 0.7, 1e-9]
    whole, first = MeanAccumulator(), MeanAccumulator()
    for value in values:
        whole.add({"x": value})
    for value in values[:2]:
        first.add({"x": value})
    second = MeanAccumulator(json.loads(json.dumps(first.state)))
    for value in values[2:]:
        second.add({"x": value})
    assert second.means() == whole.means()


def test_a_resumed_journal_repeats_no_step(tmp_path):
    journal = MetricsWriter(tmp_path, "metrics", step=0)
    for step in (10, 20, 30):
        journal.write(step, {"loss": step / 10})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 35, "lo')
    again = MetricsWriter(tmp_path, "metrics", step=20)
    again.write(30, {"loss": -1.0})
    records = read_metrics(tmp_path, "metrics")
    assert records == [
        {"step": 10, "loss": 1.0},
        {"step": 20, "loss": 2.0},
        {"step": 30, "loss": -1.0},
    ]


def test_half_a_record_does_not_swallow_the_next(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0')
    MetricsWriter(tmp_path, "metrics", step=2).write(3, {"loss": 0.25})
    assert [record["step"] for record in read_metrics(tmp_path, "metrics")] == [1, 3]


def test_what_is_not_finite_is_null(tmp_path):
    MetricsWriter(tmp_path, "metrics", step=0).write(
        1, {"loss": math.nan, "norm": math.inf, "rate": 1.0}
    )
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "step": 1,
        "loss": None,
        "norm": None,
        "rate": 1.0,
    }


def test_a_journal_that_was_never_written_is_empty(tmp_path):
    assert read_metrics(tmp_path, "metrics") == []


def test_tensorboard_gets_the_same_numbers(tmp_path):
    board = TensorBoardWriter(tmp_path, step=0)
    MetricsWriter(tmp_path, "metrics", step=0, tensorboard=board).write(1, {"loss": 0.5})
    board.close()
    events = list((tmp_path / "tensorboard").iterdir())
    assert len(events) == 1
    assert b"metrics/loss" in events[0].read_bytes()


def test_a_board_that_cannot_be_written_does_not_end_the_run(tmp_path, caplog, monkeypatch):
    def full(*point):
        raise OSError(28, "No space left on device")

    board = TensorBoardWriter(tmp_path, step=0)
    monkeypatch.setattr("tensorboardX.SummaryWriter.add_scalar", full)
    board.write(1, {"loss": 1.0})
    board.write(2, {"loss": 1.0})
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No space left" in caplog.text
