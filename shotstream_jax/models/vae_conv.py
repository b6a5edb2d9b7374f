"""Causal convolution over video, and its two lowerings.

A convolution here looks at a frame and the two before it. What came before is an argument: `None`
at the start of a clip (the frames before are zero), else the last two input frames of the call
before. Every call returns its own last two, so a clip can be fed in pieces of any length:

    call 1   [0 0] a b c     remembers [b c]
    call 2   [b c] d         remembers [c d]

Source: CausalConv3d of the public Wan2.1 repository, wan/modules/vae.py.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from shotstream_jax.typing import Array, Float

TAPS = 3
"""Frames that a temporal convolution sees: its own and two before it."""

Frames = Float[Array, "batch frame row col chan"]
"""Features of consecutive frames."""

Past = Float[Array, "batch 2 row col _"]
"""The last two input frames of a temporal convolution: all it needs to go on."""

Lowering = Literal["conv3d", "stacked"]
"""`conv3d` is one 3-D convolution; `stacked` puts the taps on channels, for one 2-D convolution."""


def default_lowering(platform: str | None = None) -> Lowering:
    """The faster lowering on a platform (`cpu`, `gpu` or `tpu`; this machine's when not named)."""
    return "stacked" if (platform or jax.default_backend()) == "cpu" else "conv3d"


def causal_conv(
    x: Frames,
    past: Past | None,
    kernel: Float[Array, "3 height width chan out"],
    *,
    lowering: Lowering,
) -> Float[Array, "batch frame row col out"]:
    """Convolve each frame with the two before it; zeros around the picture keep its size."""
    if past is None and x.shape[1] == 1:
        # Two taps of three would meet nothing but zeros.
        return _conv2d(x, kernel[-1])
    match lowering:
        case "stacked":
            return _conv2d(stack_taps(prepend_past(x, past)), _stack_kernel(kernel))
        case "conv3d":
            return jax.lax.conv_general_dilated(
                prepend_past(x, past),
                kernel,
                window_strides=(1, 1, 1),
                padding=((0, 0), *_same_padding(kernel.shape[1:3])),
                dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
            )


def remember(x: Frames, past: Past | None) -> Past:
    """The two newest frames, zeros where there are not two yet."""
    if x.shape[1] >= TAPS - 1:
        return x[:, x.shape[1] - (TAPS - 1) :]
    return prepend_past(x, past)[:, -(TAPS - 1) :]


def prepend_past(x: Frames, past: Past | None) -> Float[Array, "batch longer row col chan"]:
    """Put the two frames before in front, zeros if there are none."""
    if past is None:
        return jnp.pad(x, ((0, 0), (TAPS - 1, 0), (0, 0), (0, 0), (0, 0)))
    return jnp.concatenate([past, x], axis=1)


def stack_taps(x: Frames, *, stride: int = 1) -> Float[Array, "batch window row col stacked"]:
    """Lay the channels of every three consecutive frames side by side, oldest first.

    Windows begin `stride` frames apart; fewer than three frames make none.
    """
    last = x.shape[1] - TAPS + 1
    return jnp.concatenate([x[:, tap : last + tap : stride] for tap in range(TAPS)], axis=-1)


def _stack_kernel(
    kernel: Float[Array, "3 height width chan out"],
) -> Float[Array, "height width stacked out"]:
    _, height, width, _, out = kernel.shape
    return kernel.transpose(1, 2, 0, 3, 4).reshape(height, width, -1, out)


def _conv2d(
    x: Frames, kernel: Float[Array, "height width chan out"]
) -> Float[Array, "batch frame row col out"]:
    pictures = x.reshape(-1, *x.shape[2:])
    y = jax.lax.conv_general_dilated(
        pictures,
        kernel,
        window_strides=(1, 1),
        padding=_same_padding(kernel.shape[:2]),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _same_padding(sides: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((side // 2, side // 2) for side in sides)
