"""The whole of filming on a chip that is not here: does all of it lie there at once, and how fast?

While a film is made the chip holds the weights of the transformer and the autoencoder, both caches
and the code of every program; programs take turns with their workspace. The text encoder is on the
host, and runs once a caption.
"""

import dataclasses
from collections.abc import Mapping

from jax.sharding import Mesh

from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.perf.plan.compile import Plan, plan_program
from shotstream_jax.perf.plan.film_cost import film_flops, program_flops
from shotstream_jax.perf.plan.film_programs import film_programs, filming
from shotstream_jax.perf.plan.projection import Projection, project
from shotstream_jax.perf.targets import Target

_OUTPUTS = {"decode-first": "past", "caption-keys": "caption"}
"""The argument of other programs that a program makes: not there yet while it runs."""


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


def project_film(shape: FilmShape, target: Target, mesh: Mesh, *, share_of_peak: float) -> FilmPlan:
    """Compile every program that films, and add up what must lie on a device together."""
    programs = film_programs(shape, mesh)
    plans = {
        name: plan_program(programs[name], target, mesh, program_flops(shape, name))
        for name in filming(shape)
    }
    memory = resident_memory(plans)
    limit = target.chip.memory
    projection = project(
        target,
        film_flops(shape),
        devices=mesh.size,
        share_of_peak=share_of_peak,
        frames=shape.video_frames,
    )
    return FilmPlan(
        target=target.name,
        mesh=next(iter(plans.values())).mesh,
        fits=all(plan.fits for plan in plans.values()) and memory["peak"] <= limit,
        memory={**memory, "limit": limit},
        argument_bytes=_held(plans),
        flops=film_flops(shape),
        projection=projection,
        programs=plans,
    )


def resident_memory(plans: Mapping[str, Plan]) -> dict[str, int]:
    """Memory of one device while that program runs which leaves least room, all code with it."""
    held = _held(plans)
    moments = [
        {
            "arguments": sum(size for part, size in held.items() if part != _OUTPUTS.get(name)),
            "temporaries": plan.memory.get("temporaries", 0),
            "outputs": plan.memory.get("outputs", 0),
        }
        for name, plan in plans.items()
    ]
    # Programs run one at a time, so that workspaces share one place; arguments stay between them,
    # and so does the code of every program that has run.
    fullest = max(moments, key=lambda moment: sum(moment.values()))
    memory = {**fullest, "code": sum(plan.memory.get("code", 0) for plan in plans.values())}
    return {**memory, "peak": sum(memory.values())}


def project_program(
    plan: Plan, shape: FilmShape, target: Target, *, devices: int, share_of_peak: float
) -> Projection:
    """Time of one run of a program, and the rate at which it alone makes video frames."""
    stride = shape.config.vae.temporal_stride
    chunk_frames = shape.config.rollout.window.chunk * stride
    frames = {
        **dict.fromkeys(("chunk", "commit-chunk", "chunk-keys"), chunk_frames),
        "shot": shape.video_frames,
        "decode-first": 1,
        # A latent frame shows a temporal stride of video frames, one where the autoencoder has no
        # past.
        "decode": stride,
    }
    return project(
        target,
        plan.flops["analytic"],
        devices=devices,
        share_of_peak=share_of_peak,
        # Weights and cache are read at least once a run: the floor of small programs, of which few
        # operations meet many bytes.
        argument_bytes=sum(plan.argument_bytes.values()),
        frames=frames.get(plan.program),
    )


def _held(plans: Mapping[str, Plan]) -> dict[str, int]:
    held: dict[str, int] = {}
    for plan in plans.values():
        held.update(plan.argument_bytes)
    return held
