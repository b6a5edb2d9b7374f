"""The `shotstream` command: one verb a module, errors in one line, exit status that scripts read.

0    done                    2    bad input, said in one line
1    a story has problems    130  stopped by Ctrl-C (143 by SIGTERM); finished shots are kept
"""

import os
import pathlib
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import tyro

_CACHE = pathlib.Path("~/.cache/shotstream_jax/programs")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    signal.signal(signal.SIGTERM, _terminate)
    _prepare_jax()
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. Finished shots are kept; --resume goes on after them.\n")
        return 130
    except _Terminated:
        return 143
    except (ValueError, OSError) as error:
        if os.environ.get("SHOTSTREAM_TRACEBACK"):
            raise
        sys.stderr.write(f"shotstream: {_one_line(error)}\n")
        return 2


def _run(argv: Sequence[str]) -> int:
    from shotstream_jax.cli.train import train

    verb, *rest = argv or ("--help",)
    if verb == "train":
        # Its options are those of the experiment file, which must be read first.
        return train(rest)
    return tyro.extras.subcommand_cli_from_dict(_verbs(), prog="shotstream", args=argv) or 0


def _verbs() -> dict[str, Callable[..., Any]]:
    from shotstream_jax.cli.bench import bench
    from shotstream_jax.cli.check import check_story
    from shotstream_jax.cli.convert import convert
    from shotstream_jax.cli.evaluate import evaluate
    from shotstream_jax.cli.generate import generate
    from shotstream_jax.cli.plan import plan
    from shotstream_jax.cli.train import Train

    return {
        "generate": generate,
        "check": check_story,
        "train": Train,
        "eval": evaluate,
        "convert": convert,
        "bench": bench,
        "plan": plan,
    }


def _prepare_jax() -> None:
    """Keep compiled programs between runs, and keep quiet about chips that are not there."""
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(_CACHE.expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.strerror} ({error.filename})"
    return " ".join(str(error).split()) or type(error).__name__


class _Terminated(BaseException):
    """SIGTERM came: unwind, so that half-written files are removed."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


if __name__ == "__main__":
    sys.exit(main())
