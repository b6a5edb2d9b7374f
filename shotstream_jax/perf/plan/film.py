"""The whole of filming on a chip that is not here: does all of it lie there at once, and how fast?

While a film is made the chip holds the weights of the transformer and the autoencoder, both caches
and the code of every program; programs take turns with their workspace. The text encoder is on the
host, and runs once a caption.
"""

import dataclasses
from collections.abc import Mapping

from jax.sharding import Mesh

from shotstream_jax.perf.plan.compile import Plan, plan_program
from shotstream_jax.perf.plan.part_cost import film_flops, program_flops
from shotstream_jax.perf.plan.programs import FilmSizes, film_programs
from shotstream_jax.perf.plan.projection import Projection, project
from shotstream_jax.perf.targets import Target

RESIDENT = ("chunk", "commit", "context", "decode-first", "decode", "encode")
"""The programs that film, all of them on the chip from the first shot to the last."""

_MAKES = {"decode-first": "past"}
"""What is not there yet while a program runs, because it is what the program makes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmPlan:
    """What filming would take on one target; bytes are of one device.

    Attributes:
      target: name.
      mesh: devices along each axis that has more than one.
      fits: whether every program compiles, and everything fits at the same time.
      memory: bytes while the program runs that leaves least room: of all arguments that are there,
        each once; of its workspace, as temporaries and outputs; of the code of all programs; of all
        together (`peak`); and the limit.
      argument_bytes: bytes of each argument by name.
      flops: operations of a shot, by the sizes alone.
      projection: of a shot that follows another one, from its cut to its last frame.
      programs: what the compiler said of each.
    """

    target: str
    mesh: Mapping[str, int]
    fits: bool
    memory: Mapping[str, int]
    argument_bytes: Mapping[str, int]
    flops: int
    projection: Projection
    programs: Mapping[str, Plan]


def plan_film(sizes: FilmSizes, target: Target, mesh: Mesh, *, share_of_peak: float) -> FilmPlan:
    """Compile every program that films, and add up what must lie on a device together."""
    programs, flops = film_programs(sizes, mesh), program_flops(sizes)
    plans = {name: plan_program(programs[name], target, mesh, flops[name]) for name in RESIDENT}
    memory = resident_memory(plans)
    limit = target.chip.memory
    projection = project(
        target,
        film_flops(sizes),
        devices=mesh.size,
        share_of_peak=share_of_peak,
        frames=sizes.video_frames,
    )
    return FilmPlan(
        target=target.name,
        mesh=next(iter(plans.values())).mesh,
        fits=all(plan.fits for plan in plans.values()) and memory["peak"] <= limit,
        memory={**memory, "limit": limit},
        argument_bytes=_held(plans),
        flops=film_flops(sizes),
        projection=projection,
        programs=plans,
    )


def resident_memory(plans: Mapping[str, Plan]) -> dict[str, int]:
    """Memory of one device while that program runs which leaves least room, all code with it."""
    held = _held(plans)
    moments = [
        {
            "arguments": sum(size for part, size in held.items() if part != _MAKES.get(name)),
            "temporaries": plan.memory.get("temporaries", 0),
            "outputs": plan.memory.get("outputs", 0),
        }
        for name, plan in plans.items()
    ]
    fullest = max(moments, key=lambda moment: sum(moment.values()))
    memory = {**fullest, "code": sum(plan.memory.get("code", 0) for plan in plans.values())}
    return {**memory, "peak": sum(memory.values())}


def project_program(
    plan: Plan, sizes: FilmSizes, target: Target, *, devices: int, share_of_peak: float
) -> Projection:
    """Time of one run of a program, and the rate at which it alone makes video frames."""
    stride = sizes.vae.temporal_stride
    frames = {
        "chunk": sizes.rollout.window.chunk * stride,
        "shot": sizes.video_frames,
        "decode-first": 1,
        "decode": stride,
    }
    return project(
        target,
        plan.flops["analytic"],
        devices=devices,
        share_of_peak=share_of_peak,
        argument_bytes=sum(plan.argument_bytes.values()),
        frames=frames.get(plan.program),
    )


def _held(plans: Mapping[str, Plan]) -> dict[str, int]:
    held: dict[str, int] = {}
    for plan in plans.values():
        held.update(plan.argument_bytes)
    return held
