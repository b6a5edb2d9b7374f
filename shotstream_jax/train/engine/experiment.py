"""Experiment files: Python that defines `config`, the settings of a stage or a list of stages."""

import difflib
import pathlib
import runpy
from collections.abc import Sequence
from typing import TypeVar

Config = TypeVar("Config")


def load_config(path: pathlib.Path, *kinds: type[Config]) -> Config:
    """The `config` that a file defines, which must be of one of some kinds.

    Raises:
      ValueError: there is no such file, or it defines another thing.
    """
    if not path.is_file():
        there = sorted(str(file) for file in path.parent.glob("*.py"))
        raise ValueError(f"There is no file {path}{nearest(str(path), there)}.")
    # Run as a script, not imported: files need no package, and two may have one name.
    config = runpy.run_path(str(path)).get("config")
    if not isinstance(config, kinds):
        wanted = ", ".join(kind.__name__ for kind in kinds)
        raise ValueError(
            f"{path} defines config as {type(config).__name__}; one of {wanted} is needed."
        )
    return config


def nearest(name: str, names: Sequence[str]) -> str:
    """A guess at what was meant, to go into an error; nothing if there is none."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""
