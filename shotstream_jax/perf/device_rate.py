"""What the device that is here may sustain, before anything is compiled: a guess, and why."""

import dataclasses
import time

import numpy as np

from shotstream_jax.perf.peaks import peak_flops
from shotstream_jax.sharding import Device

# What large transformers reach in training on an H100.
_SHARE_OF_PEAK = 0.4

# Of the rate of one large product of matrices: the miniature's demo story took twice as long as its
# 15 GFLOP in such products, on 2 cores.
_SHARE_OF_PRODUCTS = 0.5

# 400e12 is `_SHARE_OF_PEAK` of an H100.
_UNKNOWN = 400e12

# A product of 0.27 GFLOP: some 10 ms, long enough to be timed.
_SIDE, _TRIES = 512, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceRate:
    """A rate of operations, and where it comes from.

    Attributes:
      flops: floating-point operations per second.
      reason: in words.
    """

    flops: float
    reason: str


def device_rate(device: Device) -> DeviceRate:
    """The rate that filming may sustain on a device."""
    if device.platform == "cpu":
        flops = _SHARE_OF_PRODUCTS * _products_per_second()
        return DeviceRate(flops=flops, reason="half of what this CPU multiplies, just measured")
    kind = device.device_kind
    peak = peak_flops(kind)
    if peak is None:
        return DeviceRate(flops=_UNKNOWN, reason=f"assumed: {kind} is not known here")
    return DeviceRate(flops=_SHARE_OF_PEAK * peak, reason=f"{_SHARE_OF_PEAK:.0%} of {kind}'s peak")


def _products_per_second() -> float:
    matrix = np.ones((_SIDE, _SIDE), np.float32)
    taken = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        _ = matrix @ matrix
        taken.append(time.perf_counter() - began)
    # The first one starts threads, and others may share the cores: the fastest counts.
    return 2 * _SIDE**3 / min(taken)
