"""Runs `shotstream ...`, or the toy training, and is killed (-9) at a named moment.

    python -m tests.dies_at OPERATION NUMBER shotstream generate story.yaml -o film
    python -m tests.dies_at fsync 7 toy FOLDER STEPS

OPERATION is one of what writers do to a file system; the process dies before call NUMBER of it
(from 1), or right after it if NUMBER is negative. 0 is never. For `file-size`, NUMBER is the bytes
that a file may grow to, as on a disk that is full.
"""

import os
import pathlib
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

OPERATIONS = {
    "rename": (pathlib.Path, "rename"),
    "replace": (pathlib.Path, "replace"),
    "mkdir": (pathlib.Path, "mkdir"),
    "unlink": (pathlib.Path, "unlink"),
    "rmdir": (pathlib.Path, "rmdir"),
    "fsync": (os, "fsync"),
}


def arm(operation: str, number: int) -> None:
    """Make one call of an operation the last thing that this process does, or limit files."""
    if operation == "file-size":
        # Past the limit comes a signal, which Python ignores: writes then fail with OSError.
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
        return
    owner, name = OPERATIONS[operation]
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if calls == -number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def main() -> int:
    """Run the command until it ends or dies."""
    operation, number, command, *rest = sys.argv[1:]
    # Imported first, so that imports' own calls are not counted.
    if command == "toy":
        from shotstream_jax.train.engine.loop import train
        from tests.train.engine.toy_training import toy

        arm(operation, int(number))
        train(toy(rest[0], steps=int(rest[1]), save_every=1), existing="resume")
        return 0
    from shotstream_jax.cli.main import main as shotstream

    arm(operation, int(number))
    return shotstream(rest)


if __name__ == "__main__":
    sys.exit(main())
