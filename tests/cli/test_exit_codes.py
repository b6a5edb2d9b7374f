"""The numbers that scripts rely on, and their one table."""

import signal

import pytest

from shotstream_jax.cli.exit_codes import MEANINGS, ExitCode
from shotstream_jax.cli.main import main


def test_numbers_stay_what_scripts_expect():
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "NEGATIVE": 1,
        "BAD_INPUT": 2,
        "DIVERGED": 43,
        "UNFORESEEN": 70,
        "OUT_OF_MEMORY": 71,
        "NOT_PRINTED": 74,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 1), (None, 1)],
)
def test_a_signal_has_its_status(number, status):
    assert ExitCode.of_signal(number) == status


def test_help_prints_every_status(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert MEANINGS.keys() == set(ExitCode)
    for code, meaning in MEANINGS.items():
        assert f"{code:>5}  {meaning}" in said
