"""Rates leave out compilation and pauses; durations read like clocks."""

import time

import pytest

from shotstream_jax.progress import RateMeter, clock_time, seconds_left


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_the_first_item_only_starts_the_clock(clock):
    meter = RateMeter()
    assert meter.rate is None
    clock(1000)
    meter.count()
    assert meter.rate is None
    for _ in range(4):
        clock(0.5)
        meter.count()
    assert meter.rate == pytest.approx(2.0)


def test_items_may_come_in_groups(clock):
    meter = RateMeter()
    meter.count(12)
    clock(2)
    meter.count(12)
    assert meter.rate == pytest.approx(6.0)


def test_pauses_are_left_out_even_if_they_fail(clock):
    meter = RateMeter()
    meter.count()
    clock(1)
    with meter.pause():
        clock(50)

    def fail():
        with meter.pause():
            clock(50)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    clock(1)
    meter.count()
    assert meter.rate == pytest.approx(0.5)


def test_a_pause_before_the_first_item_changes_nothing(clock):
    meter = RateMeter()
    with meter.pause():
        clock(50)
    meter.count()
    clock(2)
    meter.count()
    assert meter.rate == pytest.approx(0.5)


def test_a_restart_measures_every_item_that_follows(clock):
    meter = RateMeter()
    for _ in range(3):
        meter.count()
        clock(1)
    meter.restart()
    assert meter.rate is None
    clock(4)
    meter.count()
    assert meter.rate == pytest.approx(0.25)


@pytest.mark.parametrize(("items", "rate", "left"), [(10, 2.5, 4.0), (10, None, None), (0, 2.0, 0)])
def test_time_left(items, rate, left):
    assert seconds_left(items, rate) == left


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0:00"), (59.6, "1:00"), (61.0, "1:01"), (3599.0, "59:59"), (3661.0, "1:01:01")],
)
def test_durations_read_like_clocks(seconds, text):
    assert clock_time(seconds) == text
