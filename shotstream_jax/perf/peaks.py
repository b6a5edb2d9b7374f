"""What devices could do at best: published peaks, to call a measured rate a share of one."""

from shotstream_jax.perf.targets import CHIPS

_GPUS = (
    # Data sheets lead with twice these, for sparse matrices. The PCIe card is slower, and its name
    # contains the other's: it stands first.
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("A100", 312e12),
)
"""Dense bfloat16 operations per second, by a part of the device's name; the first match counts."""

# A v5p calls itself "TPU v5", with or without the p.
_TPUS = {"TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v5p": "v5p", "TPU v6 lite": "v6e"}


def peak_flops(device_kind: str) -> float | None:
    """Peak bfloat16 operations per second of a device, as JAX names its kind; None if unknown."""
    chip = CHIPS.get(_TPUS.get(device_kind, device_kind.replace("TPU", "tpu")))
    if chip is not None:
        return chip.flops
    return next((flops for name, flops in _GPUS if name in device_kind), None)
