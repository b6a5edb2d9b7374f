"""What compilation costs the first shot: with no program kept from before, and with all kept.

Cold is the first shot with an empty folder of kept programs; warm is the same again after this
process has forgotten every program, so that each is traced and looked up in that folder, as in a
new process. Neither holds the loading of weights or the import of packages.
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
    """Seconds of a first shot, cold, warm and ready, for each of which it is told the name.

    Programs stay in memory afterwards.
    """
    with tempfile.TemporaryDirectory() as folder, program_cache(pathlib.Path(folder)):
        jax.clear_caches()
        cold = _seconds(film_first_shot, "cold")
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
