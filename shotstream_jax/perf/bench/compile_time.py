"""Seconds of a first shot with an empty and with a filled cache of compiled programs.

Cold is the first shot with an empty cache folder; warm is the same again after
`jax.clear_caches()`, so that each program is traced and looked up in that folder, as in a new
process. Neither includes the loading of weights or the import of packages.
"""

import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax

from shotstream_jax.perf.program_cache import program_cache

DEFINITION = (
    "seconds of a film's first shot: cold with an empty folder of compiled programs, warm after "
    "jax.clear_caches() with that folder filled, ready with every program in memory"
)


def compile_times(film_first_shot: Callable[[str], Any]) -> dict[str, Any]:
    """Seconds of a first shot: cold, warm and ready; the callable gets the name of each.

    Programs stay in memory afterwards.
    """
    # A folder of its own: the user's cache would make the cold film a warm one.
    with tempfile.TemporaryDirectory() as folder, program_cache(pathlib.Path(folder)):
        jax.clear_caches()
        cold = _seconds(film_first_shot, "cold")
        # Drops traces and executables of this process and keeps the files.
        jax.clear_caches()
        warm = _seconds(film_first_shot, "warm")
    return {
        "definition": DEFINITION,
        "cold_seconds": cold,
        "warm_seconds": warm,
        "ready_seconds": _seconds(film_first_shot, "ready"),
    }


def _seconds(call: Callable[[str], Any], name: str) -> float:
    began = time.perf_counter()
    call(name)
    return time.perf_counter() - began
