"""The folder of a run: one writer at a time, and only the run whose settings are in it.

    run.json          stage, settings
    metrics.jsonl     one line a few steps        validation.jsonl, validation/   scores, pictures
    checkpoints/      of state and data position  stopped_at_000120/              a dump
    export/           the trained networks        lock

The lock is the operating system's: it is released when the process that holds it ends or is killed.
"""

import contextlib
import dataclasses
import fcntl
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import IO, Any, ClassVar, Literal, Protocol, runtime_checkable

from shotstream_jax.files import atomic_file

_RENAMED_STAGES = {"LatentMaking": "LatentDataset"}
_RENAMED_SETTINGS = {
    "ratio": "generator_every",
    "commits": "history",
    "looked_at": "validation_stories",
    "judged": "test_stories",
    "gate": "min_oracle_accuracy",
}
"""Names in the folders of version 0.1.0, whose runs can be resumed, and the names of today."""

_REMOVED_SETTINGS = {"cache_gradient": "detached", "dmd.outside": "drop"}
"""Settings of version 0.1.0 that are gone, with the one value that a run still computes with."""

RUN_FILE, LOCK, EXPORT, VALIDATION = "run.json", "lock", "export", "validation"

Existing = Literal["refuse", "resume", "overwrite"]
"""What to do if the folder holds a run already."""


@runtime_checkable
class Settings(Protocol):
    """Settings of a run: a dataclass with a folder, and the names of what may change."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    MAY_CHANGE: ClassVar[frozenset[str]]

    @property
    def output(self) -> pathlib.Path:
        """Folder of the run."""
        ...


@contextlib.contextmanager
def opened(training: Settings, existing: Existing) -> Iterator[pathlib.Path]:
    """The folder of a run, locked; empty, or with the run to resume in it.

    Raises:
      ValueError: another process holds the lock, the folder holds other files than a run's, or a
        run that is to be neither resumed nor overwritten.
      OSError: a folder that cannot be written.
    """
    folder = training.output
    folder.mkdir(parents=True, exist_ok=True)
    # The lock comes first: two processes that start together must not both find the folder empty.
    # It is opened for appending, which creates the file and never empties it.
    with (folder / LOCK).open("a+", encoding="utf-8") as lock:
        _take(lock, folder)
        _clear_or_refuse(folder, existing)
        with atomic_file(folder / RUN_FILE) as partial:
            partial.write_text(json.dumps(describe(training), indent=1) + "\n", encoding="utf-8")
        yield folder


def describe(training: Settings) -> dict[str, Any]:
    """Stage and settings as JSON."""
    settings = dataclasses.asdict(training)
    # Through JSON and back, so that tuples and paths compare equal to what a file holds.
    plain = json.loads(json.dumps(settings, default=str))
    return {"stage": type(training).__name__, "settings": plain}


def stored_facts(folder: pathlib.Path) -> dict[str, Any] | None:
    """Stage and settings of the run in a folder; `None` if there is no run.

    Raises:
      ValueError: the file is damaged.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); start again with --overwrite.") from error


def refuse_other(training: Settings, found: Mapping[str, Any]) -> None:
    """Compare the settings of a run with those stored in its folder.

    Raises:
      ValueError: another stage, or another value of a setting that changes the numbers.
    """
    mine, stage = describe(training), _RENAMED_STAGES.get(found["stage"], found["stage"])
    if stage != mine["stage"]:
        raise ValueError(
            f"{training.output} holds a run of stage {stage} and this one is of stage "
            f"{mine['stage']}; give another --output."
        )
    settings = {_RENAMED_SETTINGS.get(k, k): v for k, v in found["settings"].items()}
    was, now = _flat(settings), _flat(mine["settings"])
    # Only where the value is today's behaviour: a run with another one would change its numbers.
    was = {k: v for k, v in was.items() if k not in _REMOVED_SETTINGS or v != _REMOVED_SETTINGS[k]}
    for name in sorted(was.keys() | now.keys()):
        changed = was.get(name) != now.get(name)
        if changed and name.split(".")[0] not in training.MAY_CHANGE:
            raise ValueError(
                f"{training.output} holds a run with {name} {was.get(name)!r}, and it is "
                f"{now.get(name)!r} now; put it back, or give another --output or --overwrite."
            )


def _take(lock: IO[str], folder: pathlib.Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"{folder} is in use by another process; wait for it, or give another --output."
        ) from error


def _clear_or_refuse(folder: pathlib.Path, existing: Existing) -> None:
    """Refuse or remove what the folder holds, unless it is to be resumed."""
    # Hidden files are temporary ones of killed writers, or of the file system.
    found = [path for path in folder.iterdir() if path.name != LOCK and path.name[0] != "."]
    if not found:
        return
    if not (folder / RUN_FILE).is_file():
        raise ValueError(f"{folder} holds {found[0].name} and no run; give another --output.")
    if existing == "refuse":
        raise ValueError(
            f"{folder} holds a run; go on with it (--resume), start it again (--overwrite), or "
            "give another --output."
        )
    if existing == "overwrite":
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    """Values by dotted name."""
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list):
        items = ((str(index), value) for index, value in enumerate(tree))
    else:
        return {name: tree}
    parts = [_flat(value, f"{name}.{key}".lstrip(".")) for key, value in items]
    return {key: value for part in parts for key, value in part.items()}
