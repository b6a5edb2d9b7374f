"""Where compiled programs are kept between runs, changed for a while."""

import contextlib
import pathlib
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache

_SETTING = "jax_compilation_cache_dir"


@contextlib.contextmanager
def program_cache(folder: pathlib.Path | None) -> Iterator[None]:
    """Keep compiled programs in a folder, or nowhere, until the block ends."""
    before = getattr(jax.config, _SETTING)
    _switch(None if folder is None else str(folder))
    try:
        yield
    finally:
        _switch(before)


def _switch(folder: str | None) -> None:
    jax.config.update(_SETTING, folder)
    # JAX looks at the folder once and keeps to it until told to look again.
    compilation_cache.reset_cache()
