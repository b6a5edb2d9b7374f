"""A short run of `python -m tests.faults`, and that it sees a loss."""

import pytest

from tests import faults

QUICK = ("kill overwrite", "flip film", "flip dataset", "edit story")


def test_nothing_is_lost(capsys):
    """Kind: kills, flipped bits and edits lost a film, or changed it without a word."""
    assert faults.main(["--minutes", "0", "--group", *QUICK]) == 0
    assert capsys.readouterr().out.splitlines()[-4:] == [f"{n}: survived 1 of 1" for n in QUICK]


def test_a_loss_is_seen(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(faults, "Bench", lambda folder, seed: None)
    monkeypatch.setattr(faults, "GROUPS", {"loses": lambda bench: "all of it"})
    assert faults.main(["--minutes", "0", "--group", "loses", "--seed", "5"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "loses, try 1 of seed 5: all of it",
        "loses: survived 0 of 1",
    ]


@pytest.mark.slow
def test_nothing_is_lost_in_ten_minutes():
    assert faults.main(["--minutes", "10", "--seed", "1"]) == 0
