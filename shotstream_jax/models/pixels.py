"""Between 8-bit video frames and the pixels in [-1, 1] that networks compute with.

Black is -1 and white is 1, so a step of 1/255 is 2/255 here: factor and offset are both 127.5.
"""

import jax.numpy as jnp

from shotstream_jax.typing import Array, Float, UInt8


def frames_to_pixels(
    frames: UInt8[Array, "*axes height width 3"],
) -> Float[Array, "*axes height width 3"]:
    """Colours in [0, 255] to [-1, 1]."""
    return frames.astype(jnp.float32) / 127.5 - 1


def pixels_to_frames(
    pixels: Float[Array, "*axes height width 3"],
) -> UInt8[Array, "*axes height width 3"]:
    """Colours in [-1, 1] to integers in [0, 255], clipped to that range."""
    # To the nearest integer: 8-bit frames survive the round trip. The public code truncates.
    return jnp.clip(jnp.round((pixels + 1) * 127.5), 0, 255).astype(jnp.uint8)
