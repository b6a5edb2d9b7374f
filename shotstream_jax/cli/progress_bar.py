"""The progress display of every verb: a bar in a terminal, lines where output goes to a file."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from shotstream_jax.progress import clock_time


class ProgressBar:
    """A bar with a description before it and a status behind it; used as a context manager."""

    def __init__(self, console: Console, description: str = "Compiling") -> None:
        self._console = console
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}")
        self._bar = Progress(*columns, console=console)
        # No total yet: the bar pulses while programs compile, in place of standing at nothing.
        self._task = self._bar.add_task(description, total=None, status="")

    def __enter__(self) -> "ProgressBar":
        # A bar redraws its line with control characters, which would fill a log file.
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def update(self, description: str, *, done: int, total: int, status: str = "") -> None:
        """Redraw the bar."""
        self._bar.update(
            self._task, description=description, completed=done, total=total, status=status
        )

    def line(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        self._console.print(Text(text), soft_wrap=True)

    def line_without_bar(self, text: str) -> None:
        """Print a line that a terminal does not need, since its bar says the same."""
        if not self._console.is_terminal:
            self.line(text)


def pace(rate: float | None, unit: str, seconds_left: float | None) -> str:
    """`2.34 steps/s, 1:02:03 left`; nothing before there is a rate."""
    if rate is None or seconds_left is None:
        return ""
    return f"{rate:.2f} {unit}/s, {clock_time(seconds_left)} left"
