"""All tests: programs are compiled in a hurry, kept between runs, shared by workers.

Compilation is most of the time of these tests. Optimising less changes no mathematics; set
XLA_FLAGS yourself to test as programs run in earnest.
"""

import os
import pathlib
import signal

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax

_PROGRAMS = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "programs"

jax.config.update("jax_compilation_cache_dir", str(_PROGRAMS))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background deaf to Ctrl-C, and so would be all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
