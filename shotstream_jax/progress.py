"""Rate of long work and the time it has left, as every verb of the command shows them."""

import contextlib
import time
from collections.abc import Iterator


class RateMeter:
    """Items per second since the last restart, without pauses and without the first item.

    The first item of a run takes as long as its programs take to compile, which says nothing about
    the items that follow: the clock starts when it is done.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._items = 0

    def count(self, items: int = 1) -> None:
        """Count items that are done; those of the first call only start the clock."""
        if self._since is None:
            self._since = time.monotonic()
        else:
            self._items += items

    @property
    def rate(self) -> float | None:
        """Items per second; `None` before there is an item to measure by."""
        if self._since is None or not self._items:
            return None
        # A clock of coarse resolution may show no time at all between two items.
        return self._items / max(time.monotonic() - self._since, 1e-9)

    def restart(self) -> None:
        """Forget the items so far; those that follow are measured from now on."""
        self._since, self._items = time.monotonic(), 0

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Do not count the time of the block."""
        began = time.monotonic()
        try:
            yield
        finally:
            if self._since is not None:
                self._since += time.monotonic() - began


def seconds_left(items: int, rate: float | None) -> float | None:
    """Time for the items left, in seconds; `None` before there is a rate."""
    return items / rate if rate else None


def clock_time(seconds: float) -> str:
    """A duration as `h:mm:ss`, or as `m:ss` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
