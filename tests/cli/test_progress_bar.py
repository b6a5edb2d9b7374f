"""A bar for terminals, lines for files."""

import io

import pytest
from rich.console import Console

from shotstream_jax.cli.progress_bar import ProgressBar, pace


def shown(*, terminal: bool) -> str:
    out = io.StringIO()
    with ProgressBar(Console(file=out, force_terminal=terminal, width=100)) as bar:
        bar.update("step 1/4", done=1, total=4, status="loss 0.5")
        bar.line("a finding")
        bar.line_without_bar("step 1/4  loss 0.5")
    return out.getvalue()


def test_a_file_gets_lines_and_no_control_characters():
    assert shown(terminal=False) == "a finding\nstep 1/4  loss 0.5\n"


def test_a_terminal_gets_a_bar_and_findings():
    text = shown(terminal=True)
    assert "a finding" in text
    assert "step 1/4" in text
    assert "loss 0.5" in text
    assert "step 1/4  loss 0.5\n" not in text


@pytest.mark.parametrize(
    ("rate", "left", "text"),
    [(2.345, 3661.0, "2.35 steps/s, 1:01:01 left"), (None, 3.0, ""), (1.0, None, "")],
)
def test_pace(rate, left, text):
    assert pace(rate, "steps", left) == text
