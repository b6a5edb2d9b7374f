"""How far the oracle can be trusted: its accuracy on true films, clean and spoilt.

Print it beside every score. The spoilers stand for what a small autoencoder does to a film.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from shotstream_jax.storyworld.attributes import ATTRIBUTES
from shotstream_jax.storyworld.film_score import cut_accuracy
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.oracle import observe_shot
from shotstream_jax.storyworld.render import PICTURE, VIDEO_FRAMES, render_shot
from shotstream_jax.storyworld.spec import StorySpec, true_value
from shotstream_jax.typing import HostFrames

Spoil = Callable[[HostFrames, np.random.Generator], HostFrames]

BLUR_PIXELS = 1.0
NOISE_SIGMA = 0.06


def blur(frames: HostFrames, rng: np.random.Generator) -> HostFrames:
    """Blur with a Gaussian of `BLUR_PIXELS` standard deviation."""
    del rng
    reach = int(np.ceil(3 * BLUR_PIXELS))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / BLUR_PIXELS) ** 2)
    spoilt = frames.astype(np.float32)
    for axis in (1, 2):
        margin = [(reach, reach) if a == axis else (0, 0) for a in range(4)]
        padded = np.moveaxis(np.pad(spoilt, margin, mode="edge"), axis, 0)
        length = frames.shape[axis]
        mixed = sum(w * padded[k : k + length] for k, w in enumerate(kernel / kernel.sum()))
        spoilt = np.moveaxis(np.asarray(mixed), 0, axis)
    return _to_uint8(spoilt)


def halve(frames: HostFrames, rng: np.random.Generator) -> HostFrames:
    """Keep one pixel of four, their mean, and blow it up again."""
    del rng
    count, height, width, _ = frames.shape
    small = frames.reshape(count, height // 2, 2, width // 2, 2, 3).mean((2, 4))
    return _to_uint8(small.repeat(2, axis=1).repeat(2, axis=2))


def add_noise(frames: HostFrames, rng: np.random.Generator) -> HostFrames:
    """Add Gaussian noise of `NOISE_SIGMA` standard deviation, as a share of the RGB range."""
    return _to_uint8(frames + rng.normal(0, 255 * NOISE_SIGMA, frames.shape))


def fade(frames: HostFrames, rng: np.random.Generator) -> HostFrames:
    """Take a quarter of the saturation and a twelfth of the contrast."""
    del rng
    grey = frames.mean(-1, keepdims=True)
    return _to_uint8((0.75 * frames + 0.25 * grey) * 11 / 12 + 127.5 / 12)


def keep(frames: HostFrames, rng: np.random.Generator) -> HostFrames:
    """Leave the film as it is."""
    del rng
    return frames


SPOILERS: Mapping[str, Spoil] = {
    "clean": keep,
    "blur": blur,
    "half": halve,
    "noise": add_noise,
    "fade": fade,
}


def oracle_accuracy(
    stories: Iterable[StorySpec],
    *,
    spoil: Spoil = keep,
    picture: Picture = PICTURE,
    video_frames: int = VIDEO_FRAMES,
    seed: int = 0,
) -> dict[str, float]:
    """Share of shots in which each attribute is read rightly, and mean accuracy of the cuts."""
    rng = np.random.default_rng(seed)
    hits: dict[str, list[float]] = {name: [] for name in (*ATTRIBUTES, "cuts")}
    for spec in stories:
        shots = range(len(spec.shots))
        films = [
            spoil(render_shot(spec, k, video_frames=video_frames, picture=picture), rng)
            for k in shots
        ]
        hits["cuts"].append(cut_accuracy(films))
        for shot, film in zip(shots, films, strict=True):
            for name, value in observe_shot(film).values.items():
                hits[name].append(value == true_value(spec, shot, name))
    return {name: float(np.mean(part)) for name, part in hits.items()}


def _to_uint8(colour: np.ndarray) -> HostFrames:
    return np.clip(colour + 0.5, 0, 255).astype(np.uint8)
