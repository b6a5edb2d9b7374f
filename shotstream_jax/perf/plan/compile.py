"""Plans for chips that are not here: compile the real programs for them and say what came out.

Whether a program compiles and what memory it takes are the compiler's own facts. The time is a
projection, operations over a share of the chip's peak, and is called so.
"""

import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from shotstream_jax.perf.plan.film_programs import Program
from shotstream_jax.perf.program_cache import program_cache
from shotstream_jax.perf.targets import GIB, Target

# XLA prints an asynchronous operation twice, as -start and -done: the start is counted.
_COLLECTIVE = re.compile(
    r"= \(?(\w+)\[([\d,]*)\][^=]*? (all-gather|all-reduce|all-to-all|reduce-scatter|"
    r"collective-permute)(?:-start)?\("
)
_ITEM_BYTES = {"bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "s8": 1, "u8": 1, "pred": 1}
# The two sentences in which the compiler says how much it would have taken.
_USED = re.compile(r"(?:Used |memory required for HLO temporaries \()([\d.]+)([KMG])")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": GIB}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What the compiler says of one program on one target; bytes are of one device.

    Attributes:
      program: name.
      target: name.
      mesh: devices along each axis that has more than one.
      fits: whether it compiled within the chip's memory.
      memory: bytes of arguments, temporaries, outputs that alias no argument, and code; all of
        them together (`peak`); and the limit. Of a program that does not fit, only what is known.
      argument_bytes: bytes of each argument by name.
      collectives: bytes moved between devices, by kind of operation; `None` for a program that
        cannot be printed.
      flops: operations, `analytic` of all devices by the sizes alone, and `compiler` as the
        compiler counts them: of one device, the body of a loop once, kernels not at all.
      bytes_accessed: as the compiler counts them, likewise.
      compile_seconds: on this machine.
      problem: what the compiler said if it does not fit.
    """

    program: str
    target: str
    mesh: Mapping[str, int]
    fits: bool
    memory: Mapping[str, int]
    argument_bytes: Mapping[str, int]
    collectives: Mapping[str, int] | None
    flops: Mapping[str, int]
    bytes_accessed: int | None
    compile_seconds: float
    problem: str = ""


def plan_program(program: Program, target: Target, mesh: Mesh, flops: int | None = None) -> Plan:
    """Compile a program for a target; one that does not fit is a finding, not an error.

    `flops` are its operations by the sizes alone, where they are known.
    """
    arguments = {name: _device_bytes(tree) for name, tree in program.arrays.items()}
    began = time.perf_counter()
    try:
        # What is compiled for a chip that is not here cannot be loaded again.
        with program_cache(None):
            compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        # No room is a finding of the plan; any other error is a mistake in the program.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        problem = _exhausted(str(error))
        found: dict[str, Any] = {
            "fits": False,
            "memory": {"arguments": sum(arguments.values()), **_used(problem)},
            "collectives": {},
            "flops": {},
            "bytes_accessed": None,
            "problem": problem,
        }
    else:
        found = _findings(compiled)
    return Plan(
        program=program.name,
        target=target.name,
        mesh={axis: size for axis, size in mesh.shape.items() if size > 1},
        argument_bytes=arguments,
        compile_seconds=time.perf_counter() - began,
        **{
            **found,
            "memory": {**found["memory"], "limit": target.chip.memory},
            "flops": {**({} if flops is None else {"analytic": flops}), **found["flops"]},
        },
    )


def collective_bytes(text: str) -> dict[str, int]:
    """Bytes of the results of collective operations in a compiled program, by kind.

    Operations inside loops count once: these are the bytes of one turn.
    """
    moved: dict[str, int] = {}
    for kind, shape, operation in _COLLECTIVE.findall(text):
        count = 1
        for size in filter(None, shape.split(",")):
            count *= int(size)
        # Types that are not listed are rare here, and taken for four bytes.
        moved[operation] = moved.get(operation, 0) + count * _ITEM_BYTES.get(kind, 4)
    return moved


def _findings(compiled: Any) -> dict[str, Any]:
    said, cost = compiled.memory_analysis(), compiled.cost_analysis()
    memory = {
        "arguments": said.argument_size_in_bytes,
        "temporaries": said.temp_size_in_bytes,
        # A donated cache is argument and output in the same memory: it counts once.
        "outputs": said.output_size_in_bytes - said.alias_size_in_bytes,
        "code": said.generated_code_size_in_bytes,
    }
    return {
        "fits": True,
        "memory": {**memory, "peak": sum(memory.values())},
        "collectives": _collectives(compiled),
        "flops": {"compiler": int(cost["flops"])},
        "bytes_accessed": int(cost["bytes accessed"]),
    }


def _collectives(compiled: Any) -> dict[str, int] | None:
    try:
        return collective_bytes(compiled.as_text())
    except jax.errors.JaxRuntimeError:
        # jaxlib 0.10 cannot print all that the compiler writes, on tpu7x nothing.
        return None


def _device_bytes(tree: Any) -> int:
    """Bytes of a tree of placed shapes on one device."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        count = 1
        for size in leaf.sharding.shard_shape(leaf.shape):
            count *= size
        total += count * leaf.dtype.itemsize
    return total


def _exhausted(message: str) -> str:
    """The one sentence of the compiler's report that says by how much."""
    lines = message.splitlines()
    return next((line.strip() for line in lines if _USED.search(line)), lines[0].strip())


def _used(problem: str) -> dict[str, int]:
    said = _USED.search(problem)
    return {"peak": int(float(said[1]) * _UNITS[said[2]])} if said else {}
