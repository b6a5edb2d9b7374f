"""How long a program would take on a chip that is not here: a projection, and called so."""

import dataclasses

from shotstream_jax.perf.targets import Target


@dataclasses.dataclass(frozen=True, kw_only=True)
class Projection:
    """A time that was not measured.

    Attributes:
      assumption: what it rests on.
      seconds: of one run.
      frames: video frames that one run makes, of a program that makes some.
      frames_per_second: of this program alone, likewise.
    """

    assumption: str
    seconds: float
    frames: int | None
    frames_per_second: float | None


def project(
    target: Target,
    flops: int,
    *,
    devices: int,
    share_of_peak: float,
    argument_bytes: int = 0,
    frames: int | None = None,
) -> Projection:
    """Time of `flops` operations on some devices of a target at a share of their peak.

    Never less than it takes to read the arguments, `argument_bytes` a device, from memory once.

    Raises:
      ValueError: a share that is not in (0, 1].
    """
    check_share(share_of_peak)
    chip = target.chip
    # The two limits of a roofline, as if reading and computing overlapped without loss.
    seconds = max(flops / (share_of_peak * chip.flops * devices), argument_bytes / chip.bandwidth)
    return Projection(
        assumption=(
            f"not measured: {share_of_peak:.0%} of the peak of {chip.flops / 1e12:g} bfloat16 "
            f"TFLOP/s on each of {devices} device{'s' if devices > 1 else ''}"
        ),
        seconds=seconds,
        frames=frames,
        frames_per_second=frames / seconds if frames else None,
    )


def check_share(share_of_peak: float) -> None:
    """Refuse what is no share of a chip's peak.

    Raises:
      ValueError: a share that is not in (0, 1].
    """
    if not 0 < share_of_peak <= 1:
        raise ValueError(f"A share of peak of {share_of_peak}; give more than 0 and at most 1.")
