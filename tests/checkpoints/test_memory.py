"""Converting holds a tensor in memory, not a network."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from shotstream_jax.checkpoints.names_dit import dit_names
from shotstream_jax.checkpoints.tensors import LazyArray
from shotstream_jax.checkpoints.torch_writer import write_torch
from shotstream_jax.models.configs import DiTConfig

CONFIG = DiTConfig(layers=6)
"""As wide as the 1.3B model, a fifth as deep."""

MEASURED = """
import pathlib, sys, threading, time
from shotstream_jax.checkpoints.official import import_source
from shotstream_jax.checkpoints.weight_sources import find_source

def held():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

peak = start = held()
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, held())

watcher = threading.Thread(target=watch)
watcher.start()
source, folder = map(pathlib.Path, sys.argv[1:])
import_source(find_source(source), folder, dtype="bfloat16")
done.set()
watcher.join()
print(peak - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="reads Linux's account of memory"
)
def test_memory_does_not_grow_with_the_network(tmp_path):
    # Noise, since what compresses well would also be written from less memory.
    noise = np.random.default_rng(0).normal(size=1 << 20).astype(np.float32)

    def noisy(shape: tuple[int, ...]) -> LazyArray:
        return LazyArray(shape, noise.dtype, lambda: np.resize(noise, shape))

    tensors = {f"model.{name}": noisy(mapping.shape) for name, mapping in dit_names(CONFIG).items()}
    write_torch(tmp_path / "film.pt", tensors, section="generator")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "film.pt"), str(tmp_path / "film")],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "film.pt").stat().st_size > 1.1e9
    # A few pieces of at most 64 MiB are being written at once, each of them held twice.
    assert int(done.stdout) < 0.4e9, done.stdout
