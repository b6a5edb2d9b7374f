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

_REPLACED = ".replaced"
"""The run before this one, until this one has a checkpoint."""

RUN_FILE, LOCK, EXPORT, VALIDATION = "run.json", "lock", "export", "validation"

# What a run has that has not taken a step: metrics are opened before the first.
_OF_A_START = frozenset(
    {RUN_FILE, "metrics.jsonl", "validation.jsonl", "checkpoints", "tensorboard"}
)

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
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    # The lock comes first: two processes that start together must not both find the folder empty.
    # It is opened for appending, which creates the file and never empties it.
    with (folder / LOCK).open("a+", encoding="utf-8") as lock:
        _take(lock, folder)
        # Of an --overwrite that was killed before its first checkpoint.
        _put_back(folder)
        _refuse(folder, existing)
        begun = stored_facts(folder)
        if begun is not None and existing == "resume":
            refuse_other(training, begun)
        if begun is not None and existing == "overwrite":
            _set_aside(folder)
        try:
            with atomic_file(folder / RUN_FILE) as partial:
                text = json.dumps(describe(training), indent=1) + "\n"
                partial.write_text(text, encoding="utf-8")
            yield folder
        except BaseException:
            if begun is None or existing == "overwrite":
                _forget_failed_start(folder)
            _put_back(folder)
            if made and {path.name for path in folder.iterdir()} == {LOCK}:
                # Nothing was begun: weights or data of an earlier stage were missing, say.
                shutil.rmtree(folder)
            raise
        if (folder / _REPLACED).is_dir():
            shutil.rmtree(folder / _REPLACED)


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
    advice = "start again with --overwrite"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    # Nested a thousand deep, JSON is beyond Python's stack.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); {advice}.") from error
    parts = (found.get("stage"), found.get("settings")) if isinstance(found, dict) else ()
    if not parts or not isinstance(parts[0], str) or not isinstance(parts[1], dict):
        raise ValueError(f"{path} does not describe a run (stage and settings); {advice}.")
    return found


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


def _refuse(folder: pathlib.Path, existing: Existing) -> None:
    """Refuse what the folder holds, unless it is a run to be resumed or replaced."""
    found = _visible(folder)
    if not found:
        return
    if not (folder / RUN_FILE).is_file():
        raise ValueError(f"{folder} holds {found[0].name} and no run; give another --output.")
    if existing == "refuse":
        raise ValueError(
            f"{folder} holds a run; go on with it (--resume), start it again (--overwrite), or "
            "give another --output."
        )


def _set_aside(folder: pathlib.Path) -> None:
    """Move a run out of the way of one that may fail to start."""
    held = folder / _REPLACED
    held.mkdir()
    # run.json first: without it the folder is not taken for the new run's.
    for path in sorted(_visible(folder), key=lambda path: path.name != RUN_FILE):
        path.rename(held / path.name)


def _put_back(folder: pathlib.Path) -> None:
    """Move a run back whose successor has no checkpoint, or remove it if that has one."""
    held = folder / _REPLACED
    if not held.is_dir() or held.is_symlink():
        return
    if _has_progress(folder):
        shutil.rmtree(held)
        return
    for path in sorted(held.iterdir(), key=lambda path: path.name == RUN_FILE):
        target = folder / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.rename(target)
    held.rmdir()


def _forget_failed_start(folder: pathlib.Path) -> None:
    """Remove the description of a run that came to nothing: no checkpoint, no dataset, no dump."""
    if not _has_progress(folder) and {path.name for path in _visible(folder)} <= _OF_A_START:
        for path in _visible(folder):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _has_progress(folder: pathlib.Path) -> bool:
    """Whether a run has left what a later one could go on from, or a person would look at."""
    checkpoints = folder / "checkpoints"
    saved = checkpoints.is_dir() and any(path.name.isdigit() for path in checkpoints.iterdir())
    return saved or any(path.name not in _OF_A_START for path in _visible(folder))


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    # Hidden files are temporary ones of killed writers, or of the file system.
    return [path for path in folder.iterdir() if path.name != LOCK and path.name[0] != "."]


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
