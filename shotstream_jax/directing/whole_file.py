"""Files that are whole or not there.

A file is made under a temporary name in its own folder and renamed when it is complete and on the
disk. A crash leaves at most `.NAME.part`, which the next attempt writes over.
"""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def whole_file(path: pathlib.Path, *, needed: int = 0) -> Iterator[pathlib.Path]:
    """A temporary path, which becomes `path` when the block ends well and vanishes otherwise.

    Args:
      path: the file to make; an older one stays until the new one is complete.
      needed: bytes the file is known to take, to be refused before any work is done.

    Raises:
      OSError: no room, with how much was needed and how much there is.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        if needed > shutil.disk_usage(path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield temporary
        with temporary.open("rb+") as file:
            # Without this the name may reach the disk before the content does.
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise _no_room(error.errno, path, temporary, needed) from error
    finally:
        temporary.unlink(missing_ok=True)


def _no_room(code: int, path: pathlib.Path, temporary: pathlib.Path, needed: int) -> OSError:
    written = temporary.stat().st_size if temporary.exists() else 0
    free = shutil.disk_usage(path.parent).free + written
    return OSError(
        code,
        f"{os.strerror(code)}: {path.name} takes more than {max(needed, written):,} bytes and "
        f"{path.parent} has {free:,} free; make room and repeat, finished files are untouched",
        str(path),
    )
