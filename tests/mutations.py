"""Small faults, each of which a test must see: which network, shot, frame, caption, count, noise.

    python -m tests.mutations [--list] [--only NAME ...] [--sample N --seed S] [--jobs N]

A mutation is one change of one line or two of the package, and the tests that should fail for it
(`tests/mutants/*.toml`). Each is made in a copy of the tree, never in the tree itself; those tests
are run, which must pass as long as nothing is changed; and what happened is said:

    killed      a test failed
    survived    all passed: a fault of this kind would be shipped
    timed out   no verdict within the limit; counts as survived
    broken      pytest did not come as far as the tests; counts as survived

Ends with `killed A of B`; 1 is the exit status if fewer than 95 % were.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "shotstream_jax"
ENOUGH = 0.95
"""Least share of mutations that the tests must kill."""

COPIED = (PACKAGE, "tests", "configs", "pyproject.toml", "README.md")
LIMIT = 600.0
"""Seconds that the tests of one mutation may take, compilation on a busy machine included."""

PASSED, FAILED = 0, 1
"""Exit status of pytest; all others say that the tests were not run to their end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mutation:
    """One fault.

    Attributes:
      name: what it is called.
      file: where in the package.
      old: text that is found there exactly once.
      new: text in its place.
      tests: files or node ids, one of which must fail.
      meaning: what would go wrong, in one line.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    meaning: str

    def applied(self, root: pathlib.Path) -> str:
        """The text of the file with the fault in it.

        Raises:
          ValueError: the old text is not found exactly once: the mutation is stale.
        """
        path = root / PACKAGE / self.file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if (found := text.count(self.old)) != 1:
            raise ValueError(
                f"Mutation {self.name} is stale: its old text is found {found} times in "
                f"{PACKAGE}/{self.file} and must be found once; write it anew."
            )
        return text.replace(self.old, self.new)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the tests said to a mutation.

    Attributes:
      mutation: the fault.
      outcome: `killed`, `survived`, `timed out` or `broken`.
      by: the first test that failed, or the last line that pytest wrote.
    """

    mutation: Mutation
    outcome: str
    by: str


def load_mutations(folder: pathlib.Path = ROOT / "tests" / "mutants") -> tuple[Mutation, ...]:
    """All mutations of a folder of TOML files, a table each, in the order in which they stand.

    Raises:
      ValueError: two of one name, or one that changes nothing.
    """
    found: dict[str, Mutation] = {}
    for path in sorted(folder.glob("*.toml")):
        for name, fields in tomllib.loads(path.read_text(encoding="utf-8")).items():
            mutation = Mutation(name=name, **{**fields, "tests": tuple(fields["tests"])})
            if name in found or mutation.old == mutation.new:
                raise ValueError(f"{path}: mutation {name} is there twice, or changes nothing.")
            found[name] = mutation
    return tuple(found.values())


def copy_tree(folder: pathlib.Path) -> pathlib.Path:
    """A copy of what the tests need; compiled programs are shared with the tree, to save time."""
    folder.mkdir(parents=True)
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    programs = ROOT / ".pytest_cache" / "programs"
    programs.mkdir(parents=True, exist_ok=True)
    (folder / ".pytest_cache").mkdir()
    (folder / ".pytest_cache" / "programs").symlink_to(programs.resolve())
    return folder


def run_tests(
    root: pathlib.Path, tests: Sequence[str], *, limit: float, bytecode: bool = False
) -> tuple[int | None, str]:
    """Exit status of pytest, `None` if it took too long, and the line that says why.

    Bytecode is written of the unchanged tree only: Python tells a stale file by size and second,
    which a fault of equal length, made in the same second, would not change.
    """
    program = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    environment |= {} if bytecode else {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            [*program, *tests],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"nothing after {limit:g} seconds"
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", ended.stdout, re.MULTILINE)
    lines = (ended.stdout + ended.stderr).strip().splitlines() or [""]
    return ended.returncode, failed[1] if failed else lines[-1]


def judge(mutation: Mutation, root: pathlib.Path, limit: float) -> Verdict:
    """Make a mutation in a copy of the tree, run its tests, and undo it."""
    path = root / PACKAGE / mutation.file
    stat, before = path.stat(), path.read_text(encoding="utf-8")
    path.write_text(mutation.applied(root), encoding="utf-8")
    try:
        status, why = run_tests(root, mutation.tests, limit=limit)
    finally:
        path.write_text(before, encoding="utf-8")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    outcomes = {PASSED: "survived", FAILED: "killed", None: "timed out"}
    return Verdict(mutation, outcomes.get(status, "broken"), why)


def judge_all(
    mutations: Sequence[Mutation], roots: Sequence[pathlib.Path], limit: float
) -> Iterator[Verdict]:
    """Verdicts as they come, one copy of the tree for each that is worked on at a time."""
    free: queue.SimpleQueue[pathlib.Path] = queue.SimpleQueue()
    for root in roots:
        free.put(root)

    def one(mutation: Mutation) -> Verdict:
        root = free.get()
        try:
            return judge(mutation, root, limit)
        finally:
            free.put(root)

    with concurrent.futures.ThreadPoolExecutor(len(roots)) as pool:
        waiting = [pool.submit(one, mutation) for mutation in mutations]
        for done in concurrent.futures.as_completed(waiting):
            yield done.result()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--list", action="store_true", help="say what there is, run nothing")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these alone")
    parser.add_argument("--sample", type=int, metavar="N", help="so many, drawn evenly")
    parser.add_argument("--seed", type=int, default=0, help="where the draw starts")
    parser.add_argument("--jobs", type=int, default=2, help="mutations at a time")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for one")
    return parser.parse_args(argv)


def choose(mutations: Sequence[Mutation], options: argparse.Namespace) -> list[Mutation]:
    """The mutations that the options ask for.

    Raises:
      ValueError: a name that there is not.
    """
    known = {mutation.name: mutation for mutation in mutations}
    if missing := set(options.only or ()) - known.keys():
        raise ValueError(f"No mutation {', '.join(sorted(missing))}; --list names all.")
    chosen = [known[name] for name in options.only or known]
    if options.sample is not None and options.sample < len(chosen):
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    # Those of the same tests one after the other: what one compiled the next finds.
    return sorted(chosen, key=lambda mutation: mutation.tests)


def say(text: str) -> None:
    """A line, at once, wherever the output goes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status comes back."""
    options = parse(argv)
    try:
        mutations = load_mutations()
        for mutation in mutations:
            mutation.applied(ROOT)
        chosen = choose(mutations, options)
    except ValueError as error:
        say(str(error))
        return 2
    if options.list:
        for mutation in chosen:
            say(f"{mutation.name:40} {mutation.file:40} {mutation.meaning}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return _run(chosen, pathlib.Path(folder), options)


def _run(chosen: Sequence[Mutation], folder: pathlib.Path, options: argparse.Namespace) -> int:
    jobs = max(1, min(options.jobs, len(chosen)))
    roots = [copy_tree(folder / "0")]
    tests = sorted({test for mutation in chosen for test in mutation.tests})
    # All of them in one process, which is much quicker than one by one: only faults need their own.
    limit = options.limit * len(chosen)
    status, why = run_tests(roots[0], tests, limit=limit, bytecode=True)
    if status != PASSED:
        say(f"The tests fail without any mutation: {why}")
        return 2
    # With its bytecode, which Python takes for fresh as long as files keep their times.
    roots += [
        shutil.copytree(roots[0], folder / str(number), symlinks=True) for number in range(1, jobs)
    ]
    killed = 0
    for verdict in judge_all(chosen, roots, options.limit):
        killed += verdict.outcome == "killed"
        say(f"{verdict.outcome:9} {verdict.mutation.name:40} {verdict.by}")
    say(f"killed {killed} of {len(chosen)}")
    return int(killed < ENOUGH * len(chosen))


if __name__ == "__main__":
    sys.exit(main())
