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

from shotstream_jax.perf.programs import Program
from shotstream_jax.perf.targets import Target

_COLLECTIVE = re.compile(
    r"= \(?(\w+)\[([\d,]*)\][^=]*? (all-gather|all-reduce|all-to-all|reduce-scatter|"
    r"collective-permute)(?:-start)?\("
)
_ITEM_BYTES = {"bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "s8": 1, "u8": 1, "pred": 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What the compiler says of one program on one target; bytes are of one device.

    Attributes:
      program: name.
      target: name.
      fits: whether it compiled within the chip's memory.
      memory: bytes of arguments, temporaries, outputs that alias no argument, and code; and the
        limit.
      argument_bytes: bytes of each argument by name.
      collectives: bytes moved between devices, by kind of operation.
      compile_seconds: on this machine.
      problem: what the compiler said if it does not fit.
    """

    program: str
    target: str
    fits: bool
    memory: Mapping[str, int]
    argument_bytes: Mapping[str, int]
    collectives: Mapping[str, int]
    compile_seconds: float
    problem: str = ""


def plan_program(program: Program, target: Target) -> Plan:
    """Compile a program for a target; one that does not fit is a finding, not an error."""
    arguments = {name: _device_bytes(tree) for name, tree in program.arguments.items()}
    began = time.perf_counter()
    try:
        compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        memory = {"arguments": sum(arguments.values()), "limit": target.chip.memory}
        return Plan(
            program=program.name,
            target=target.name,
            fits=False,
            memory=memory,
            argument_bytes=arguments,
            collectives={},
            compile_seconds=time.perf_counter() - began,
            problem=_exhausted(str(error)),
        )
    said = compiled.memory_analysis()
    return Plan(
        program=program.name,
        target=target.name,
        fits=True,
        memory={
            "arguments": said.argument_size_in_bytes,
            "temporaries": said.temp_size_in_bytes,
            "outputs": said.output_size_in_bytes - said.alias_size_in_bytes,
            "code": said.generated_code_size_in_bytes,
            "limit": target.chip.memory,
        },
        argument_bytes=arguments,
        collectives=collective_bytes(compiled.as_text()),
        compile_seconds=time.perf_counter() - began,
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
        moved[operation] = moved.get(operation, 0) + count * _ITEM_BYTES.get(kind, 4)
    return moved


def resident_bytes(plans: Mapping[str, Plan], *, text_on_host: bool) -> int:
    """Memory of one device while filming: every argument once, and the largest workspace.

    The text encoder's weights count unless it lives on the host.
    """
    held: dict[str, int] = {}
    for plan in plans.values():
        held.update(plan.argument_bytes)
    if text_on_host:
        held.pop("text", None)
    workspaces = [
        plan.memory.get("temporaries", 0) + plan.memory.get("outputs", 0) for plan in plans.values()
    ]
    code = sum(plan.memory.get("code", 0) for plan in plans.values())
    return sum(held.values()) + max(workspaces) + code


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
    line = next((line for line in message.splitlines() if "Used" in line), message)
    return " ".join(line.split())[:300]
