"""All measurements of a GPU in one command: speed, kernels, equality, and a peer implementation.

A file is written as soon as its numbers are there, the most important first; a part that fails says
so in its file and the others go on.
"""

import dataclasses
import functools
import gc
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import Mesh

from shotstream_jax.files import atomic_file
from shotstream_jax.perf.bench.equality import equality
from shotstream_jax.perf.bench.kernels import attempt, kernel_rates
from shotstream_jax.perf.bench.peer import compare_with_peer
from shotstream_jax.perf.bench.run import BenchSettings, measure_film
from shotstream_jax.perf.bench.split import EncodeVideo
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.perf.random_networks import random_networks

# In order of value: a GPU that is lent for minutes may be gone before the last one.
REPORTS = ("end_to_end", "merged", "kernels", "equality", "peer")
"""Files of a report, without their suffix, in the order in which they are made."""


def gpu_report(
    shape: FilmShape,
    mesh: Mesh,
    folder: pathlib.Path,
    *,
    settings: BenchSettings,
    encode_video: EncodeVideo,
    about: Mapping[str, Any],
    rehearsed: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> bool:
    """Measure a model with random weights, and write a JSON file for each part into a folder.

    Args:
      shape: of the networks and the film.
      mesh: devices to film on.
      folder: new or old; files of an older report are written over.
      settings: how much to film.
      encode_video: makes a video file of a shot.
      about: provenance, which every file holds.
      rehearsed: whether this is a rehearsal on a CPU; the public implementation runs on it too.
      tell: called with a line about what is being measured.

    Returns:
      Whether every part was measured, or had a reason to be skipped, and all fast paths agree.

    Raises:
      OSError: a folder that cannot be written.
    """
    device = "cpu" if rehearsed else "cuda"
    peer = functools.partial(compare_with_peer, shape, device=device, compiled=not rehearsed)
    merging = dataclasses.replace(shape, merged_passes=True)
    # Networks are made when a measurement begins and die with it: two sets of them would fill the
    # device.
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "end_to_end": lambda: measure_film(
            random_networks(shape, mesh), shape, settings, encode_video
        ),
        "merged": lambda: measure_film(
            random_networks(merging, mesh), merging, settings, encode_video
        ),
        "kernels": lambda: {"kernels": kernel_rates(shape)},
        "equality": lambda: equality(shape),
        "peer": peer,
    }
    whole = True
    for name in REPORTS:
        tell(f"{name} ...")
        found = attempt(measures[name])
        # Weights of one measurement must not take the memory of the next.
        gc.collect()
        whole = whole and "failed" not in found and found.get("within", True)
        path = folder / f"{name}.json"
        with atomic_file(path) as partial:
            document = {"kind": name, "rehearsed": rehearsed, **about, **found}
            partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        tell(f"{path} is ready{': ' + found['failed'] if 'failed' in found else ''}.")
    return whole
