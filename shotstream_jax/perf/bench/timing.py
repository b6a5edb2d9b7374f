"""Timing of device work: a call counts as done when the device has finished it."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Percentiles of a sample of seconds.

    Attributes:
      p50: median.
      p95: 95th percentile, interpolated.
      max: largest.
      count: how many there are.
    """

    p50: float
    p95: float
    max: float
    count: int


def spread(seconds: Sequence[float]) -> Spread | None:
    """Median, 95th percentile and largest; None for an empty sample."""
    if not seconds:
        return None
    # No mean: one stall of the host would move it, and a viewer notices the stall and not the mean.
    p50, p95 = np.percentile(seconds, [50, 95])
    return Spread(p50=float(p50), p95=float(p95), max=max(seconds), count=len(seconds))


def seconds_of(call: Callable[[], Any], *, repeats: int = 5) -> float:
    """Median seconds of a call, after one that compiles and is not counted."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    # The median: another process on the machine disturbs some calls and not half of them.
    return float(np.median(seconds))


def rate(flops: int, seconds: float, peak: float | None) -> dict[str, float | None]:
    """Operations in 1e12, per second, and as a share of a peak if that is known."""
    per_second = flops / seconds
    return {
        "tflop": flops / 1e12,
        "tflops_per_second": per_second / 1e12,
        "share_of_peak": None if peak is None else per_second / peak,
    }
