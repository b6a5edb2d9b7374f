"""Output that cannot be printed: no verb ends because of it.

A reader that went away (`| head -1`), a full disk behind `> log`, a descriptor closed by a service
manager: what cannot be printed is dropped, and the verb goes on to its end.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from shotstream_jax.cli.exit_codes import ExitCode


@runtime_checkable
class TextSink(Protocol):
    """What is needed of a stream."""

    def write(self, text: str, /) -> int:
        """Write a text."""
        ...

    def flush(self) -> None:
        """Write what is buffered."""
        ...


class SafeStream:
    """A text stream whose writes never raise; the first failure is kept and ends its output."""

    def __init__(self, stream: TextSink):
        self._stream = stream
        self.failure: Exception | None = None
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without the story's letters shows their numbers.
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write a text, or drop it; its length either way."""
        if self.failure is None:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:
                self._stop(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is buffered."""
        if self.failure is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._stop(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _stop(self, error: Exception) -> None:
        self.failure = error
        # What is still buffered would be written, and fail, once more when Python ends.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)


@contextlib.contextmanager
def safe_output() -> Iterator[tuple[SafeStream, SafeStream]]:
    """Standard output and error that never raise, while the block runs."""
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as opened:
        out, err = (
            SafeStream(
                stream or opened.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123
            )
            for stream in before
        )
        # Every writer needs `write` and `flush` alone; the rest is the stream's own.
        sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
        try:
            yield out, err
        finally:
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before


def status_of(status: int, out: SafeStream, err: SafeStream) -> int:
    """The exit status: that of the verb, unless its result could not be printed."""
    failure = out.failure
    # A reader that went away has read what it wanted.
    if failure is None or (isinstance(failure, OSError) and failure.errno == errno.EPIPE):
        return status
    reason = failure.strerror if isinstance(failure, OSError) else str(failure)
    err.write(f"shotstream: standard output could not be written: {reason}\n")
    err.flush()
    return status or ExitCode.NOT_PRINTED


def _fill_descriptors() -> None:
    # With descriptor 1 or 2 closed, the next file that is opened would get its number, and what
    # libraries print would go into a video.
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(descriptor)
