"""The array vocabulary: axis names and aliases that every signature uses.

Axes, in the order in which arrays hold them (channels last, everywhere):

    batch        independent samples
    frame        latent frames                 video_frame  pixel frames, 1 + 4 (frame - 1)
    row col      latent grid, or patch grid    height width pixels
    chan         latent channels
    token        patches, frame-major, then row, then column
    text_token   positions of an encoded caption
    caption      captions, one a shot
    layer head head_dim dim   of a transformer
    slot         positions in a key/value cache
"""

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8, Key, PyTree, UInt8

Latents = Float[Array, "batch frame row col chan"]
"""Clean, noisy or predicted latents, normalised per channel."""

Pixels = Float[Array, "batch video_frame height width 3"]
"""RGB in [-1, 1]."""

VideoFrames = UInt8[Array, "video_frame height width 3"]
"""RGB in [0, 255]."""

HostFrames = UInt8[np.ndarray, "video_frame height width 3"]
TakeLatents = Float[np.ndarray, "batch frame row col chan"]
"""The same in host memory."""

Timesteps = Float[Array, "batch #frame"]
"""Schedule time in [0, 1000], 1000 is noise; one a frame (a frame axis of 1 broadcasts)."""

Index = Int[Array, ""] | int
"""One integer, static or traced."""

Text = Float[Array, "batch caption text_token text_dim"]
"""Encoded captions, zero beyond each caption's length."""

Params = PyTree[Float[Array, "..."] | Int8[Array, "..."]]
"""A network's parameters: nested dicts of arrays, which may be held in 8 bits."""

__all__ = [
    "Array",
    "Bool",
    "Float",
    "HostFrames",
    "Index",
    "Int",
    "Key",
    "Latents",
    "Params",
    "Pixels",
    "PyTree",
    "TakeLatents",
    "Text",
    "Timesteps",
    "UInt8",
    "VideoFrames",
]
