"""Files and folders that appear whole or not at all.

What is being written stands beside its place under a hidden name, and is renamed when complete.
"""

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file to write, which becomes `path` (and replaces what was there) if all goes well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        partial = pathlib.Path(folder, path.name)
        yield partial
        partial.replace(path)


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to fill, which becomes `path` if all goes well.

    Raises:
      FileExistsError: something is there already.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists already; remove it or choose another place.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield partial
        # A private folder until here; from now on as open as any other one.
        partial.chmod(0o755)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
