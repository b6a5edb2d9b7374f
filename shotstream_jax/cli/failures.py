"""What is said when a verb fails: one line, and a log file for what was not foreseen."""

import os
import pathlib
import platform
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence

from shotstream_jax.cli.exit_codes import ExitCode

_PACKAGE = str(pathlib.Path(__file__).parents[1])

_MEMORY_ADVICE = (
    "make --size smaller or shots shorter (--chunks), keep the text encoder in host memory "
    "(--text-on-host), use more --devices, or in training a smaller batch; `shotstream check` "
    "estimates what a story takes"
)


def explain(error: Exception, words: Sequence[str]) -> tuple[str, ExitCode]:
    """One line about an exception of a verb, and the exit status that it ends with.

    Args:
      error: what was raised.
      words: the command line, for the log.
    """
    if _is_out_of_memory(error):
        asked = re.search(r"[\d.]+ ?(?:[KMGT]i?B|bytes)\b", str(error))
        size = f", {asked[0]} more were asked for" if asked else ""
        return f"out of memory{size}: {_MEMORY_ADVICE}.", ExitCode.OUT_OF_MEMORY
    if isinstance(error, OSError) or (isinstance(error, ValueError) and _is_ours(error)):
        return one_line(error), ExitCode.BAD_INPUT
    name = type(error).__name__
    log = _write_log(error, words)
    place = f"details are in {log}" if log else "no log could be written"
    message = f"not foreseen: {name}: {_shortened(one_line(error))} ({place}; please report it)."
    return message, ExitCode.UNFORESEEN


def one_line(error: Exception) -> str:
    """The message of an exception, without line ends."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.strerror} ({error.filename})"
    return " ".join(str(error).split()) or type(error).__name__


def _shortened(message: str, longest: int = 200) -> str:
    return message if len(message) <= longest else f"{message[: longest - 1]}…"


def _is_out_of_memory(error: Exception) -> bool:
    # XLA has one type of error for everything, and the code of it in its text.
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _is_ours(error: Exception) -> bool:
    """Whether this package raised it, with a message made for people."""
    frames = traceback.extract_tb(error.__traceback__)
    # A file of settings is the user's, and its complaints are for them too.
    return not frames or frames[-1].filename.startswith((_PACKAGE, "<")) or _is_settings(frames)


def _is_settings(frames: traceback.StackSummary) -> bool:
    return not frames[-1].filename.startswith((sys.prefix, sys.base_prefix))


def _write_log(error: Exception, words: Sequence[str]) -> str:
    """Write the whole traceback into a new file; its path, or nothing if that fails too."""
    try:
        descriptor, path = tempfile.mkstemp(prefix="shotstream_", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"shotstream {' '.join(map(repr, words))}\n")
            file.write(f"Python {platform.python_version()} on {platform.platform()}\n\n")
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return ""
    return path
