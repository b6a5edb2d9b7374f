"""Faults at random places, and whether anything was lost: kills, full disks, flipped bits, edits.

    python -m tests.faults [--minutes M] [--seed S] [--group NAME ...]

A try survives if what was asked for can still be had, bit for bit as without the fault, or if it is
refused in one line and everything that was there is still there. Ends with a line for each group,
`GROUP: survived A of B`; the exit status is 1 if any try did not survive, and what it did is said.
"""

import argparse
import contextlib
import io
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

import numpy as np

from shotstream_jax.cli.main import main as shotstream
from shotstream_jax.data.shards import ShardReader, Shards
from tests.dies_at import OPERATIONS

ROOT = pathlib.Path(__file__).resolve().parents[1]
MINIATURE = ROOT / "shotstream_jax" / "bundled" / "tiny"

FIRST = """\
version: 2
title: First
defaults: {seed: 3, size: [32, 48], fps: 8, chunks: 1}
shots:
  - {id: one, caption: "wide shot, it walks right in the meadow."}
  - {id: two, caption: "close shot, it waits in the desert."}
"""
SECOND = FIRST.replace("First", "Second").replace("seed: 3", "seed: 4")
STEPS = 6

Latents = Mapping[str, bytes]
Try = Callable[["Bench"], str]
"""Makes a fault and goes on after it; returns what was lost, and nothing if nothing was."""


class Bench:
    """Where tries are made: two stories, their films as they should be, and a random generator."""

    def __init__(self, folder: pathlib.Path, seed: int):
        """Film both stories without a fault, and train the toy."""
        self.folder, self.random = folder, random.Random(seed)
        self.stories = {}
        for name, text in (("first", FIRST), ("second", SECOND)):
            self.stories[name] = folder / f"{name}.yaml"
            self.stories[name].write_text(text)
        self.films = {name: folder / f"{name}_film" for name in self.stories}
        for name, story in self.stories.items():
            status, said = run("generate", story, "-o", self.films[name])
            if status != 0:
                raise RuntimeError(f"Filming without a fault failed: {said}")
        self.truth = {name: latents(film) for name, film in self.films.items()}
        self.seconds = self._seconds()
        self.trained = self._trained()

    def fresh(self, copy_of: pathlib.Path | None = None) -> pathlib.Path:
        """A place for one try: empty, or a copy of a folder."""
        place = pathlib.Path(tempfile.mkdtemp(dir=self.folder)) / "try"
        if copy_of is not None:
            shutil.copytree(copy_of, place)
        return place

    def moment(self) -> tuple[str, str]:
        """A file system operation and the number of the call at which to die."""
        operation = self.random.choice(sorted(OPERATIONS))
        return operation, str(self.random.choice((-1, 1)) * self.random.randint(1, 24))

    def killed(self, *command: object) -> None:
        """Run a command in a process that dies at a named moment, or by the clock."""
        by_clock = self.random.random() < 0.3
        moment = ("fsync", "0") if by_clock else self.moment()
        # At a random time after the start, most of which is importing.
        limit = self.seconds * self.random.uniform(0.3, 1.1) if by_clock else 600
        arguments = [sys.executable, "-m", "tests.dies_at", *moment, *map(str, command)]
        with contextlib.suppress(subprocess.TimeoutExpired):  # a timeout kills by SIGKILL too
            subprocess.run(arguments, cwd=ROOT, capture_output=True, timeout=limit, check=False)

    def _seconds(self) -> float:
        start = time.monotonic()
        story, place = self.stories["first"], self.fresh()
        arguments = ["fsync", "0", "shotstream", "generate", str(story), "-o", str(place)]
        subprocess.run(
            [sys.executable, "-m", "tests.dies_at", *arguments],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        return time.monotonic() - start

    def _trained(self) -> Latents:
        place = self.fresh()
        train_toy(place)
        return exported(place)


def run(*arguments: object) -> tuple[int, str]:
    """Exit status of `shotstream ...`, and its last line; programs stay compiled between calls."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = shotstream([str(argument) for argument in arguments])
        except Exception as error:  # noqa: BLE001 - a traceback is a fault, whatever it is
            return -1, f"traceback: {type(error).__name__}: {error}"
    return status, (err.getvalue().strip().splitlines() or [""])[-1]


def latents(folder: pathlib.Path) -> Latents:
    """The finished shots of a film, by name."""
    found = {}
    for path in sorted(folder.glob("shot_*.npz")):
        with np.load(path) as stored:
            found[path.name] = stored["latents"].tobytes()
    return found


def content(folder: pathlib.Path) -> Mapping[str, bytes]:
    """Every file of a folder, writers' temporary ones apart."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".part" not in path.as_posix()
    }


def train_toy(place: pathlib.Path) -> None:
    """Train until the last step, from wherever the last process came to."""
    arguments = ["fsync", "0", "toy", str(place), str(STEPS)]
    subprocess.run(
        [sys.executable, "-m", "tests.dies_at", *arguments],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )


def exported(place: pathlib.Path) -> Latents:
    """What the toy exports when it is done."""
    files = sorted(place.rglob("toy.npz"))
    if not files:
        return {}
    with np.load(files[-1]) as stored:
        return {name: stored[name].tobytes() for name in stored.files}


def kill_generate(bench: Bench) -> str:
    """Filming into a new folder is killed; the film is then finished."""
    place, story = bench.fresh(), bench.stories["first"]
    bench.killed("shotstream", "generate", story, "-o", place)
    return _finished(bench, place, "first")


def kill_resume(bench: Bench) -> str:
    """Finishing a film is killed, and taken up again."""
    place = bench.fresh(bench.films["first"])
    for path in place.glob("shot_02.*"):
        path.unlink()
    bench.killed("shotstream", "generate", bench.stories["first"], "-o", place, "--resume")
    return _finished(bench, place, "first")


def kill_overwrite(bench: Bench) -> str:
    """Filming over a film is killed: the new one can be finished, or the old one is all there."""
    place = bench.fresh(bench.films["first"])
    (place / "notes.txt").write_text("mine")
    bench.killed("shotstream", "generate", bench.stories["second"], "-o", place, "--overwrite")
    lost = _finished(bench, place, "second")
    if lost:
        lost = _finished(bench, place, "first")
    return lost or ("" if (place / "notes.txt").exists() else "notes.txt is gone")


def kill_train(bench: Bench) -> str:
    """Training is killed, and taken up again."""
    place = bench.fresh()
    bench.killed("toy", place, STEPS)
    train_toy(place)
    return "" if exported(place) == bench.trained else "training ended elsewhere"


def full_disk(bench: Bench) -> str:
    """A file may grow to some size only; filming is refused in one line, and goes on later."""
    place, story, size = bench.fresh(), bench.stories["first"], bench.random.randint(0, 60_000)
    arguments = ["file-size", str(size), "shotstream", "generate", str(story), "-o", str(place)]
    # No bytecode: that is not what is filmed.
    done = subprocess.run(
        [sys.executable, "-B", "-m", "tests.dies_at", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if "Traceback" in done.stderr:
        return f"a traceback with {size} bytes: {done.stderr.strip().splitlines()[-1]}"
    return _finished(bench, place, "first")


def flip_film(bench: Bench) -> str:
    """A bit of a film folder is flipped; resuming notices, or it does not matter."""
    place = bench.fresh(bench.films["first"])
    for path in place.glob("shot_02.*"):
        path.unlink()
    _flip(bench, place)
    before = content(place)
    status, said = run("generate", bench.stories["first"], "-o", place, "--resume")
    if status == 0:
        return "" if latents(place) == bench.truth["first"] else "another film"
    return _refused(status, said) or ("" if content(place) == before else "the folder changed")


def flip_checkpoint(bench: Bench) -> str:
    """A bit of a checkpoint is flipped; opening notices, or it films the same film."""
    place, film = bench.fresh(MINIATURE), bench.fresh()
    _flip(bench, place)
    status, said = run("generate", bench.stories["first"], "-o", film, "--checkpoint", place)
    if status == 0:
        return "" if latents(film) == bench.truth["first"] else "another film"
    return _refused(status, said)


def flip_dataset(bench: Bench) -> str:
    """A bit of a dataset is flipped; reading notices, or it reads the same."""
    place = bench.fresh()
    rows = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    shards = Shards(place, 4, 2)
    shards.describe({"kind": "test"})
    for shard in range(2):
        shards.write(shard, {"x": rows[2 * shard : 2 * shard + 2]})
    _flip(bench, place)
    try:
        reader = ShardReader(place, "test")
        read = np.stack([reader[index]["x"] for index in range(len(reader))])
    except ValueError:
        return ""
    except Exception as error:  # noqa: BLE001 - likewise
        return f"traceback: {type(error).__name__}: {error}"
    return "" if np.array_equal(read, rows) else "other numbers were read"


def edit_story(bench: Bench) -> str:
    """The story of a begun film is edited; resuming films it so, or refuses and keeps all."""
    place, edited = bench.fresh(bench.films["first"]), bench.fresh().with_suffix(".yaml")
    for path in place.glob("shot_02.*"):
        path.unlink()
    edits = {
        "fps: 8": f"fps: {bench.random.randint(9, 30)}",
        "seed: 3": f"seed: {bench.random.randint(4, 99)}",
        "chunks: 1": "chunks: 2",
        "size: [32, 48]": "size: [48, 48]",
        "waits": "jumps",
        "walks right": "walks left",
        "First": "Edited",
        "id: two": "id: another",
    }
    old = bench.random.choice(sorted(edits))
    edited.write_text(FIRST.replace(old, edits[old]))
    before = content(place)
    status, said = run("generate", edited, "-o", place, "--resume")
    if status != 0:
        unchanged = "" if content(place) == before else f"{old}: the folder changed"
        return _refused(status, said) or unchanged or _finished(bench, place, "first")
    again = bench.fresh()
    run("generate", place / "story.yaml", "-o", again)
    return "" if latents(again) == latents(place) else f"{old}: the folder's story films another"


GROUPS: Mapping[str, Try] = {
    "kill generate": kill_generate,
    "kill resume": kill_resume,
    "kill overwrite": kill_overwrite,
    "kill train": kill_train,
    "full disk": full_disk,
    "flip film": flip_film,
    "flip checkpoint": flip_checkpoint,
    "flip dataset": flip_dataset,
    "edit story": edit_story,
}


def _finished(bench: Bench, place: pathlib.Path, name: str) -> str:
    """Finish a film, as a person would who does not know how far it came."""
    story = bench.stories[name]
    status, said = run("generate", story, "-o", place, "--resume")
    if status != 0 and not latents(place):
        status, said = run("generate", story, "-o", place)
    if status != 0:
        return f"cannot be finished: {said}"
    manifest = json.loads((place / "manifest.json").read_text())
    left = [path.name for path in place.iterdir() if path.name.startswith(".repl")]
    if not manifest["complete"] or left:
        return f"not complete, or with {left} left"
    return "" if latents(place) == bench.truth[name] else "another film"


def _refused(status: int, said: str) -> str:
    """Whether a refusal was one line and no traceback."""
    return "" if status == 2 and said.startswith("shotstream: ") else f"status {status}: {said}"


def _flip(bench: Bench, folder: pathlib.Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = bench.random.choice(files)
    data = bytearray(path.read_bytes())
    bit = bench.random.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def main(argv: list[str] | None = None) -> int:
    """Try every group for its share of the time, once at least; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=1.0, help="of all groups together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--group", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="NAME")
    options = parser.parse_args(argv)
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(pathlib.Path(folder), options.seed)
        for name in options.group:
            end = time.monotonic() + 60 * options.minutes / len(options.group)
            tried = survived = 0
            while not tried or time.monotonic() < end:
                lost = GROUPS[name](bench)
                tried, survived = tried + 1, survived + (not lost)
                if lost:
                    sys.stdout.write(f"{name}, try {tried} of seed {options.seed}: {lost}\n")
            counts[name] = survived, tried
    for name, (survived, tried) in counts.items():
        sys.stdout.write(f"{name}: survived {survived} of {tried}\n")
    return int(any(survived < tried for survived, tried in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
