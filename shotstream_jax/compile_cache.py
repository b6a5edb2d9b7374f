"""Compiled programs kept between runs, for the command and for Python alike.

A cache only saves time: a folder that cannot be made, is full or is damaged is never an error. JAX
compiles anew then.
"""

import os
import pathlib
import tempfile
import warnings
from collections.abc import Mapping

import jax
from jax.experimental.compilation_cache import compilation_cache

_FOLDER = pathlib.Path("shotstream_jax", "programs")

# By default only programs that take a second to compile are kept. A film has dozens of small ones,
# which together are most of the wait for the first frames of a small model.
_KEEP_ALL = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def use_compile_cache() -> str:
    """Keep compiled programs in the user's cache folder, unless a folder was chosen already.

    `JAX_COMPILATION_CACHE_DIR`, or `jax.config`, choose another one.

    Returns:
      Why nothing is kept, in one line; empty where programs are kept.
    """
    # A full disk is a warning of several lines a program, dozens of times.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return ""
    folder = cache_folder(os.environ)
    reason = _unusable(folder)
    if reason:
        return f"Compiled programs are not kept: {reason}. Every run compiles anew."
    for name, value in _KEEP_ALL.items():
        # A variable of the same name is the user's own choice, which JAX has read already.
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX looks once, at its first compilation, whether there is a cache.
    compilation_cache.reset_cache()
    return ""


def cache_folder(environment: Mapping[str, str]) -> pathlib.Path | None:
    """Where programs are kept: `XDG_CACHE_HOME`, else `.cache` at home; `None` without a home."""
    named = pathlib.Path(environment.get("XDG_CACHE_HOME", ""))
    # The XDG specification: a path that is not absolute counts as none.
    if named.is_absolute():
        return named / _FOLDER
    try:
        return pathlib.Path("~/.cache").expanduser() / _FOLDER
    except RuntimeError:  # no HOME, and a user who is in no list
        return None


def _unusable(folder: pathlib.Path | None) -> str:
    """Why a folder cannot take files; empty if it can."""
    if folder is None:
        return "there is no home folder; JAX_COMPILATION_CACHE_DIR names another"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{folder}: {(error.strerror or str(error)).lower()}"
