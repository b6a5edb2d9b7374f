"""Peak memory of this process so far, on its devices and on the host."""

import sys
from typing import Any

import jax


def peak_memory() -> dict[str, Any]:
    """Peak bytes since the process began: of its fullest device, where devices count, and of RAM.

    A device's peak includes what was allocated while weights were made.
    """
    # CPU devices return None or an empty dict.
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [held["peak_bytes_in_use"] for held in stats if "peak_bytes_in_use" in held]
    limits = [held["bytes_limit"] for held in stats if "bytes_limit" in held]
    return {
        "device_peak_bytes": max(peaks, default=None),
        "device_limit_bytes": max(limits, default=None),
        "host_peak_bytes": _host_peak(),
    }


def _host_peak() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts ru_maxrss in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024
