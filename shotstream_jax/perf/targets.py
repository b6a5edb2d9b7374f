"""Chips that programs are compiled for without having them.

A target is `CHIP:TOPOLOGY`, such as `v6e:1x1` or `v5e:2x2`. Memory limits are what the compiler
enforces; peaks are the vendors' published figures, used for projections only.
"""

import dataclasses
import importlib.util
import math
import os
from collections.abc import Mapping, Sequence

from jax.experimental import mesh_utils, topologies
from jax.sharding import AxisType, Mesh

from shotstream_jax.sharding import AXES, Device, make_mesh

GIB = 1 << 30

_FILM_AXES = ("fsdp", "tensor")
# The largest slice whose description and mesh the tests try, for every chip.
_MOST_CHIPS = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One device as JAX counts them (a tpu7x chip holds two).

    Attributes:
      memory: bytes that a program may use.
      flops: peak bfloat16 operations per second.
      bandwidth: peak bytes per second from memory.
      axes: of the grid that its chips form.
    """

    memory: int
    flops: float
    bandwidth: float
    axes: int


# Memory is the limit that the compiler prints when it refuses a program, peaks are of the data
# sheets. A tpu7x chip of 2307 TFLOP/s and 7.4 TB/s is two devices.
CHIPS: Mapping[str, Chip] = {
    "v5e": Chip(memory=int(15.75 * GIB), flops=197e12, bandwidth=819e9, axes=2),
    "v5p": Chip(memory=int(95.73 * GIB), flops=459e12, bandwidth=2765e9, axes=3),
    "v6e": Chip(memory=int(31.24 * GIB), flops=918e12, bandwidth=1640e9, axes=2),
    "tpu7x": Chip(memory=int(94.74 * GIB), flops=1153.5e12, bandwidth=3690e9, axes=3),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A slice of chips to compile for.

    Attributes:
      name: as it was asked for.
      chip: one of its devices.
      devices: descriptions that programs are compiled for; nothing runs on them.
    """

    name: str
    chip: Chip
    devices: tuple[Device, ...]


def find_target(name: str) -> Target:
    """Describe a slice of TPU chips that need not be here.

    Raises:
      ValueError: an unknown chip or topology, or no compiler for it on this machine.
    """
    kind, _, topology = name.partition(":")
    chip = CHIPS.get(kind)
    if chip is None:
        raise ValueError(f"Target {name!r} is unknown; there are {', '.join(CHIPS)}, as v6e:1x1.")
    # The compiler ends the process over a topology that it cannot read.
    sides = topology.split("x")
    if not all(side.isdigit() and int(side) for side in sides) or len(sides) != chip.axes:
        raise ValueError(
            f"Target {name!r}: chips of {kind} form a grid of {chip.axes} sides, each 1 or more; "
            f"name it as {kind}:{'x'.join('2' * chip.axes)}."
        )
    if math.prod(map(int, sides)) > _MOST_CHIPS:
        raise ValueError(f"Target {name!r} has more than {_MOST_CHIPS} chips; plan for fewer.")
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"Target {name!r} needs the TPU compiler, which is not installed; "
            "`pip install shotstream-jax[aot]` brings it."
        )
    _quiet_compiler()
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=name)
    # The compiler raises types of its own for a topology that it does not know.
    except Exception as error:
        raise ValueError(
            f"Target {name!r} is not described by the compiler ({_first_line(error)}); name a "
            "topology that exists, as v5e:2x2, v6e:2x4, v5p:2x2x2 or tpu7x:1x1x1."
        ) from error
    return Target(name=name, chip=chip, devices=tuple(described.devices))


def target_mesh(target: Target, heads: int, asked: str = "") -> Mesh:
    """A mesh to film on, of all devices of a target: as asked, or heads split as far as they go.

    `asked` is `tensor=4` or `fsdp=2,tensor=4`. What heads leave over splits the weights (`fsdp`).

    Raises:
      ValueError: a mesh that is not understood, or that does not fit the devices or the heads.
    """
    chosen = _chosen_sizes(heads, len(target.devices))
    sizes = _axis_sizes(asked, _FILM_AXES) if asked else chosen
    if heads % sizes.get("tensor", 1):
        raise ValueError(
            f"{heads} heads do not split over tensor={sizes['tensor']}; give a number that "
            f"divides {heads}."
        )
    return _lay_mesh(target, sizes)


def training_mesh(target: Target, asked: str = "", *, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh to train on, of all devices of a target: as asked, or `data` what is left over.

    `asked` is `data=2,fsdp=8`.

    Raises:
      ValueError: a mesh that is not understood, or that does not fit the devices.
    """
    # Whatever the mesh does not split otherwise holds samples: that changes no array but the batch.
    left = {"data": max(len(target.devices) // (fsdp * tensor), 1), "fsdp": fsdp, "tensor": tensor}
    return _lay_mesh(target, _axis_sizes(asked, AXES) if asked else left)


def _lay_mesh(target: Target, sizes: Mapping[str, int]) -> Mesh:
    try:
        return make_mesh(target.devices, **sizes)
    except (AssertionError, NotImplementedError):
        # No axis of the mesh is a whole side of the grid: lay it across sides.
        shape = tuple(sizes.get(axis, 1) for axis in AXES)
        laid = mesh_utils.create_device_mesh(shape, target.devices, allow_split_physical_axes=True)
        return Mesh(laid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _chosen_sizes(heads: int, devices: int) -> dict[str, int]:
    # Heads first: attention then needs nothing from other devices, where weights split by `fsdp`
    # are gathered for every layer.
    tensor = math.gcd(heads, devices)
    return {"fsdp": devices // tensor, "tensor": tensor}


def _axis_sizes(asked: str, axes: Sequence[str]) -> dict[str, int]:
    sizes = {}
    for part in asked.split(","):
        axis, _, size = part.strip().partition("=")
        if axis not in axes or not size.isdigit() or int(size) < 1:
            raise ValueError(
                f"Mesh {asked!r}: {part.strip()!r} is not understood; here it is split over "
                f"{', '.join(axes)}, as fsdp=2,tensor=4."
            )
        sizes[axis] = int(size)
    return sizes


def _quiet_compiler() -> None:
    """Compile beside other processes, without a search for chips and the complaint at its end."""
    for name, value in (
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-1"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_WORKER_ID", "0"),
        ("TPU_STDERR_LOG_LEVEL", "3"),
        ("JAX_PLATFORMS", "cpu"),
    ):
        os.environ.setdefault(name, value)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
