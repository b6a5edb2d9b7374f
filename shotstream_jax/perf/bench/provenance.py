"""Provenance of a result: machine, versions, commit, command; every result file holds it."""

import datetime as dt
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from collections.abc import Sequence
from typing import Any

import jax

# Chosen by hand: a whole environment would publish paths, names and tokens.
_FLAGS = (
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_PLATFORMS",
    "LIBTPU_INIT_ARGS",
    "XLA_FLAGS",
    "XLA_PYTHON_CLIENT_ALLOCATOR",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
)
"""Variables that change how programs are compiled and memory is held."""


def provenance(command: Sequence[str]) -> dict[str, Any]:
    """How a result was obtained, apart from its settings."""
    devices = jax.devices()
    return {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "platform": devices[0].platform,
        "runtime": devices[0].client.platform_version.strip(),
        "host": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {
            "shotstream-jax": _version("shotstream-jax"),
            "jax": jax.__version__,
            "jaxlib": _version("jaxlib"),
            "python": platform.python_version(),
        },
        "commit": git_commit(),
        "command": list(command),
        "flags": {name: os.environ[name] for name in _FLAGS if name in os.environ},
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def git_commit(file: pathlib.Path = pathlib.Path(__file__)) -> str | None:
    """The commit of the checkout that a file belongs to, with a plus if anything differs from it.

    None for a file that is in no checkout, as that of an installed package.
    """
    try:
        # An installed package may lie inside another project's checkout, whose commit is not ours.
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        found = _git(file.parent, "rev-parse", "HEAD")
        # Untracked files do not count: results that lie beside the code would mark every commit as
        # changed.
        changed = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return found + ("+" if changed else "")


def _git(folder: pathlib.Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
