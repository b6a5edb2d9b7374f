"""Corruptions of a film that stand for what a small autoencoder does to it."""

import functools
from collections.abc import Callable, Mapping

import numpy as np

from shotstream_jax.typing import HostFrames

BLUR_PIXELS = 1.0
NOISE_SIGMA = 0.06


def blur(frames: HostFrames, rng: np.random.Generator) -> HostFrames:
    """Blur with a Gaussian of `BLUR_PIXELS` standard deviation."""
    del rng
    reach = int(np.ceil(3 * BLUR_PIXELS))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / BLUR_PIXELS) ** 2)
    blurred = frames.astype(np.float32)
    for axis in (1, 2):
        margin = [(reach, reach) if a == axis else (0, 0) for a in range(4)]
        padded = np.moveaxis(np.pad(blurred, margin, mode="edge"), axis, 0)
        length = frames.shape[axis]
        mixed = sum(w * padded[k : k + length] for k, w in enumerate(kernel / kernel.sum()))
        blurred = np.moveaxis(np.asarray(mixed), 0, axis)
    return _to_uint8(blurred)


def halve(frames: HostFrames, rng: np.random.Generator) -> HostFrames:
    """Keep one pixel of four, their mean, and enlarge it again."""
    del rng
    count, height, width, _ = frames.shape
    small = frames.reshape(count, height // 2, 2, width // 2, 2, 3).mean((2, 4))
    return _to_uint8(small.repeat(2, axis=1).repeat(2, axis=2))


def noise(frames: HostFrames, rng: np.random.Generator) -> HostFrames:
    """Add Gaussian noise of `NOISE_SIGMA` standard deviation, as a share of the RGB range."""
    return _to_uint8(frames + rng.normal(0, 255 * NOISE_SIGMA, frames.shape))


def fade(frames: HostFrames, rng: np.random.Generator) -> HostFrames:
    """Take a quarter of the saturation and a twelfth of the contrast."""
    del rng
    grey = frames.mean(-1, keepdims=True)
    return _to_uint8((0.75 * frames + 0.25 * grey) * 11 / 12 + 127.5 / 12)


CORRUPTIONS: Mapping[str, Callable[[HostFrames, np.random.Generator], HostFrames]] = {
    "blur": blur,
    "half": halve,
    "noise": noise,
    "fade": fade,
}


def corruption(name: str) -> Callable[[HostFrames], HostFrames]:
    """A corruption by name; where it is random, every film gets another draw."""
    return functools.partial(CORRUPTIONS[name], rng=np.random.default_rng(0))


def _to_uint8(colour: np.ndarray) -> HostFrames:
    return np.clip(colour + 0.5, 0, 255).astype(np.uint8)
