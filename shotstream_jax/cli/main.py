"""The `shotstream` command: one verb a module, errors in one line, exit status by exit_codes.py."""

import ast
import importlib
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

import tyro

from shotstream_jax.cli.exit_codes import ExitCode, table

# Outside of any film or run: one cache serves all of them.
_CACHE = pathlib.Path("~/.cache/shotstream_jax/programs")

_VERBS = {
    "generate": ("generate", "generate"),
    "check": ("check", "check_story"),
    "train": ("train", "Train"),
    "eval": ("evaluate", "evaluate"),
    "convert": ("convert", "convert"),
    "bench": ("bench", "bench"),
    "plan": ("plan", "plan"),
}
"""For each verb, its module in this package, and the function or options whose docstring helps."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    # SIGTERM would end the process at once; as an exception it unwinds, and temporary files go.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. Finished shots are kept; --resume goes on after them.\n")
        return ExitCode.INTERRUPTED
    except _Terminated:
        return ExitCode.TERMINATED
    # What a user can put right, in one line; any other exception is a mistake of ours and keeps its
    # trace.
    except (ValueError, OSError) as error:
        if os.environ.get("SHOTSTREAM_TRACEBACK"):
            raise
        sys.stderr.write(f"shotstream: {_one_line(error)}\n")
        return ExitCode.BAD_INPUT


def _run(argv: Sequence[str]) -> int:
    verb, *rest = argv or ("--help",)
    if verb not in _VERBS:
        # The list of verbs, or a misspelt one: no room is opened, so that it is there at once.
        tyro.extras.subcommand_cli_from_dict(
            _summaries(),
            prog="shotstream",
            description=f"Film stories shot by shot. Exit status:\n\n{table()}",
            args=list(argv),
        )
        return ExitCode.DONE
    _prepare_jax()
    if verb == "train":
        from shotstream_jax.cli.train import train_command

        # Its options are those of the experiment file, which must be read first.
        return train_command(rest)
    # Verbs that can only succeed or raise return nothing.
    return tyro.cli(find_verb(verb), prog=f"shotstream {verb}", args=rest) or ExitCode.DONE


def find_verb(verb: str) -> Callable[..., int | None]:
    """Import one verb only: filming must not wait for the libraries that training needs."""
    module, name = _VERBS[verb]
    return getattr(importlib.import_module(f"shotstream_jax.cli.{module}"), name)


def _summaries() -> dict[str, Callable[[], None]]:
    """The verbs as functions that do nothing and have the documentation of the real ones."""

    def described(summary: str) -> Callable[[], None]:
        def verb() -> None:
            pass

        verb.__doc__ = summary
        return verb

    return {verb: described(_summary(*place)) for verb, place in _VERBS.items()}


def _summary(module: str, name: str) -> str:
    """The first paragraph of a docstring, read from the source: importing the verbs takes 2 s."""
    source = pathlib.Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return (ast.get_docstring(node) or "").split("\n\n")[0]
    raise LookupError(f"cli/{module}.py defines no {name}.")


def _prepare_jax() -> None:
    """Keep compiled programs between runs, and keep quiet about chips that are not there."""
    # Read when the libraries load, so before JAX is imported. 3 leaves only fatal messages.
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(_CACHE.expanduser()))
    # By default only programs that take a second to compile are kept. A film has dozens of small
    # ones, which together are most of the wait for the first frames of a small model.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.strerror} ({error.filename})"
    return " ".join(str(error).split()) or type(error).__name__


# No `Exception`: code that catches those to try again must not swallow a request to end.
class _Terminated(BaseException):
    """SIGTERM came: unwind, so that half-written files are removed."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


if __name__ == "__main__":
    sys.exit(main())
