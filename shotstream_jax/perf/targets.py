"""Chips that programs are compiled for without having them.

A target is `CHIP:TOPOLOGY`, such as `v6e:1x1` or `v5e:2x2`. Memory limits are what the compiler
enforces; peaks are the vendors' published figures, used for projections only.
"""

import dataclasses
import os
from collections.abc import Mapping

from jax.experimental import topologies

from shotstream_jax.sharding import Device

GIB = 1 << 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One device as JAX counts them (a tpu7x chip holds two).

    Attributes:
      memory: bytes that a program may use.
      flops: peak bfloat16 operations per second.
      bandwidth: peak bytes per second from memory.
    """

    memory: int
    flops: float
    bandwidth: float


CHIPS: Mapping[str, Chip] = {
    "v5e": Chip(memory=int(15.75 * GIB), flops=197e12, bandwidth=819e9),
    "v5p": Chip(memory=int(95.73 * GIB), flops=459e12, bandwidth=2765e9),
    "v6e": Chip(memory=int(31.24 * GIB), flops=918e12, bandwidth=1640e9),
    "tpu7x": Chip(memory=int(94.74 * GIB), flops=1153.5e12, bandwidth=3690e9),
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
    chip = CHIPS.get(name.partition(":")[0])
    if chip is None:
        raise ValueError(f"Target {name!r} is unknown; there are {', '.join(CHIPS)}, as v6e:1x1.")
    _quiet_compiler()
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except Exception as error:
        raise ValueError(
            f"Target {name!r} cannot be described ({_first_line(error)}); install the compiler "
            "with `pip install shotstream-jax[aot]`, and name a topology that exists, as v5e:2x2."
        ) from error
    return Target(name=name, chip=chip, devices=tuple(described.devices))


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
