"""The `shotstream` command: one verb a module, errors in one line, exit status by exit_codes.py."""

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from shotstream_jax import __version__
from shotstream_jax.cli.exit_codes import ExitCode
from shotstream_jax.cli.failures import explain
from shotstream_jax.cli.help import VERBS, help_text, no_such_verb
from shotstream_jax.cli.output import safe_output, status_of

_KEEPS_WORK = ("generate", "demo", "train")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    # SIGTERM would end the process at once; as an exception it unwinds, and temporary files go.
    signal.signal(signal.SIGTERM, _terminate)
    words = sys.argv[1:] if argv is None else argv
    with safe_output() as (out, err):
        status = _run_safely(words)
        out.flush()
    return status_of(status, out, err)


def _run_safely(words: Sequence[str]) -> int:
    """Run a verb; whatever it raises ends in one line."""
    try:
        return _run(words)
    except KeyboardInterrupt:
        kept = words and words[0] in _KEEPS_WORK
        more = " Finished shots are kept; --resume goes on after them." if kept else ""
        sys.stderr.write(f"Stopped.{more}\n")
        return ExitCode.INTERRUPTED
    except _Terminated:
        return ExitCode.TERMINATED
    except Exception as error:
        if os.environ.get("SHOTSTREAM_TRACEBACK"):
            raise
        message, status = explain(error, words)
        sys.stderr.write(f"shotstream: {message}\n")
        return status


def _run(words: Sequence[str]) -> int:
    verb, *rest = words or ("--help",)
    if verb in ("-h", "--help", "help"):
        sys.stdout.write(help_text())
        return ExitCode.DONE
    if verb in ("-V", "--version", "version"):
        sys.stdout.write(f"shotstream {__version__}\n")
        return ExitCode.DONE
    if verb not in VERBS:
        sys.stderr.write(f"shotstream: {no_such_verb(verb)} (`shotstream --help` lists them)\n")
        return ExitCode.BAD_INPUT
    _prepare_jax()
    if verb == "train":
        from shotstream_jax.cli.train import train_command

        # Its options are those of the experiment file, which must be read first.
        return train_command(rest)
    import tyro

    # Verbs that can only succeed or raise return nothing.
    return tyro.cli(find_verb(verb), prog=f"shotstream {verb}", args=rest) or ExitCode.DONE


def find_verb(verb: str) -> Callable[..., int | None]:
    """Import one verb only: filming must not wait for the libraries that training needs."""
    module, name = VERBS[verb]
    return getattr(importlib.import_module(f"shotstream_jax.cli.{module}"), name)


def _prepare_jax() -> None:
    """Keep compiled programs between runs, and keep quiet about chips that are not there."""
    # Read when the libraries load, so before JAX is imported. 3 leaves only fatal messages.
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from shotstream_jax.compile_cache import use_compile_cache

    reason = use_compile_cache()
    if reason:
        sys.stderr.write(f"{reason}\n")


# No `Exception`: code that catches those to try again must not swallow a request to end.
class _Terminated(BaseException):
    """SIGTERM came: unwind, so that half-written files are removed."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


if __name__ == "__main__":
    sys.exit(main())
