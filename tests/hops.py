"""How far a reader has to walk: the files that tracing one chunk and one training step enters.

    python -m tests.hops           a table; its last line is what a change is measured by
    python -m tests.hops --list    the files too, in the order in which they are entered

A trip is run under `sys.setprofile` in a process of its own, so that nothing has been traced before
and every own function on the way is called. A file counts once a function of it runs: imports and
the methods that a dataclass writes for itself do not count.
"""

import dataclasses
import inspect
import multiprocessing
import pathlib
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from types import FrameType
from typing import Any

ROOT = pathlib.Path(__file__).parents[1] / "shotstream_jax"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hops:
    """What a call entered.

    Attributes:
      files: below the root, in the order in which they are entered.
      functions: named functions and methods.
      chain: most frames of own files that were open at once.
    """

    files: tuple[str, ...]
    functions: int
    chain: int


def measure(call: Callable[[], Any], root: pathlib.Path = ROOT) -> Hops:
    """Run a call in this thread and note every function below `root` that it enters."""
    start = f"{root}/"
    files: dict[str, None] = {}
    functions: set[tuple[str, str]] = set()
    chain = 0

    def enter(frame: FrameType, event: str, _: object) -> None:
        nonlocal chain
        code = frame.f_code
        # Only functions have optimised locals: bodies of modules and classes run when imported.
        is_function = code.co_flags & inspect.CO_OPTIMIZED
        if event != "call" or not is_function or not code.co_filename.startswith(start):
            return
        files.setdefault(code.co_filename.removeprefix(start))
        # Lambdas and comprehensions are read where they are written: they are no hop of their own.
        if not code.co_name.startswith("<"):
            functions.add((code.co_filename, code.co_qualname))
        chain = max(chain, _open_frames(frame, start))

    before = sys.getprofile()
    sys.setprofile(enter)
    try:
        call()
    finally:
        sys.setprofile(before)
    return Hops(files=tuple(files), functions=len(functions), chain=chain)


def first_chunk() -> Hops:
    """A cut and the first chunk of a film, from a plan to the chunk's video frames."""
    from shotstream_jax.rollout.stream import Camera, plan_for
    from shotstream_jax.story import Defaults, Shot, Story
    from tests.small_model import small_networks

    networks = small_networks()
    defaults = Defaults(size=(32, 48), chunks=2)
    story = Story(title="Hops", shots=(Shot(caption="a"),), defaults=defaults)
    plan = plan_for(networks, story.resolved(), 0)
    return measure(lambda: next(Camera(networks, defaults.size).film(plan)))


def generator_step() -> Hops:
    """The generator's step of the stage `dmd_intra`, lowered as the training loop would run it."""
    from shotstream_jax.train.engine.compiled import build_programs, mesh_of
    from tests.train import miniature

    # A stage reads weights only when it begins, so that no earlier stage has to be there.
    training = miniature.intra(pathlib.Path("nowhere"))
    mesh = mesh_of(training.mesh)
    stage = training.stage(mesh)
    built = build_programs(stage, training, mesh)
    frozen = {name: weights.shapes for name, weights in stage.frozen.items()}
    step = built.steps["generator"]
    return measure(lambda: step.lower(built.shapes, frozen, stage.batch_shapes))


TRIPS: Mapping[str, Callable[[], Hops]] = {
    "chunk": first_chunk,
    "dmd generator step": generator_step,
}


def report(hops: Mapping[str, Hops], *, listed: bool = False) -> str:
    """A table of trips; its last line has the files of each."""
    lines = [f"{'trip':<20}{'files':>7}{'functions':>11}{'deepest chain':>15}"]
    for name, trip in hops.items():
        lines.append(f"{name:<20}{len(trip.files):>7}{trip.functions:>11}{trip.chain:>15}")
        lines += [f"    {file}" for file in trip.files if listed]
    counts = ", ".join(f"{name} {len(trip.files)}" for name, trip in hops.items())
    return "\n".join([*lines, f"files entered: {counts}"])


def main() -> None:
    """Measure every trip in a fresh process and print the report."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as process:
        waiting = {name: process.submit(trip) for name, trip in TRIPS.items()}
        hops = {name: future.result() for name, future in waiting.items()}
    sys.stdout.write(report(hops, listed="--list" in sys.argv[1:]) + "\n")


def _open_frames(frame: FrameType | None, start: str) -> int:
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename.startswith(start)
        frame = frame.f_back
    return count


if __name__ == "__main__":
    main()
