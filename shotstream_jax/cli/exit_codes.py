"""What the exit status of `shotstream` means: one table for all verbs, for scripts to act on."""

import enum
import signal


class ExitCode(enum.IntEnum):
    """Exit status of the command.

    2 is what argument parsers use for a wrong command line. 130 and 143 are what shells report for
    SIGINT and SIGTERM: 128 and the signal's number. 70, 71 and 74 are EX_SOFTWARE, EX_OSERR and
    EX_IOERR of sysexits.h. 43 is in no convention, so that a script that
    restarts runs after a preemption cannot mistake a diverged run for one.
    """

    DONE = 0
    NEGATIVE = 1
    BAD_INPUT = 2
    DIVERGED = 43
    UNFORESEEN = 70
    OUT_OF_MEMORY = 71
    NOT_PRINTED = 74
    INTERRUPTED = 128 + signal.SIGINT
    TERMINATED = 128 + signal.SIGTERM

    @classmethod
    def of_signal(cls, number: signal.Signals | None) -> "ExitCode":
        """The status of a run that a signal stopped; `NEGATIVE` if it was not a signal."""
        # Any other way to stop a run has no convention for its status.
        stopped = {signal.SIGINT: cls.INTERRUPTED, signal.SIGTERM: cls.TERMINATED}
        return stopped.get(number, cls.NEGATIVE) if number else cls.NEGATIVE


MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.NEGATIVE: "a negative result: a plan that does not fit, a report with a failed part",
    ExitCode.BAD_INPUT: "bad input, explained in one line; a story with errors",
    ExitCode.DIVERGED: "training stopped: too many steps in a row without a finite gradient",
    ExitCode.UNFORESEEN: "a fault of this program; one line names the log file with its details",
    ExitCode.OUT_OF_MEMORY: "no memory on the device or the host; one line says what to reduce",
    ExitCode.NOT_PRINTED: "done, but standard output could not be written",
    ExitCode.INTERRUPTED: "stopped by Ctrl-C; finished work is kept, --resume continues",
    ExitCode.TERMINATED: "stopped by SIGTERM, likewise",
}


def table() -> str:
    """The meanings as text, one line each."""
    return "\n".join(f"{code:>5}  {meaning}" for code, meaning in MEANINGS.items())
