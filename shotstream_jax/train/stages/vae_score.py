"""How good an autoencoder is: the oracle on reconstructions of films that it was not trained on."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from shotstream_jax.files import atomic_file
from shotstream_jax.models.configs import VAEConfig
from shotstream_jax.models.vae import (
    decode,
    encode,
    encode_moments,
    frames_to_pixels,
    pixels_to_frames,
)
from shotstream_jax.storyworld.attributes import ATTRIBUTES
from shotstream_jax.storyworld.oracle import observe_shot
from shotstream_jax.storyworld.source import WorldFilm, WorldSource
from shotstream_jax.storyworld.spec import true_value
from shotstream_jax.train.objectives.vae import peak_ratio
from shotstream_jax.typing import Array, HostFrames, Params

Reconstruct = Callable[[Params, HostFrames], HostFrames]

_SHOWN_FILMS, _SHOWN_FRAMES, _GAP = 4, 6, 4


def reconstructor(config: VAEConfig) -> Reconstruct:
    """One program that sends a shot through the autoencoder, in float32."""

    @jax.jit
    def through(
        params: Params, frames: UInt8[Array, "video_frame height width 3"]
    ) -> UInt8[Array, "video_frame height width 3"]:
        latents = encode(params, config, frames_to_pixels(frames[None]))
        return pixels_to_frames(decode(params, config, latents))[0]

    return lambda params, frames: np.asarray(through(params, jnp.asarray(frames)))


def score_reconstructions(
    reconstruct: Reconstruct, params: Params, source: WorldSource
) -> dict[str, float]:
    """PSNR in dB, of all, first and last frames; and how often the oracle reads each attribute.

    Looks at the first shot of every film.
    """
    hits: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    errors = []
    for film in _films(source):
        true = film.frames(0)
        made = reconstruct(params, true)
        errors.append(np.square((made.astype(np.float64) - true) / 127.5).mean(axis=(1, 2, 3)))
        for name, value in observe_shot(made).values.items():
            hits[name].append(value == true_value(film.spec, 0, name))
    # Errors are averaged, not decibels: a mean of logarithms would be ruled by the easy films.
    # First and last are apart, because a causal autoencoder's first frame has no past and the last
    # most.
    by_frame = np.mean(errors, axis=0)
    psnr = {"psnr": by_frame.mean(), "psnr_first": by_frame[0], "psnr_last": by_frame[-1]}
    return {
        **{name: float(peak_ratio(jnp.asarray(error))) for name, error in psnr.items()},
        **{f"oracle/{name}": float(np.mean(part)) for name, part in hits.items()},
    }


def worst_attribute(scores: Mapping[str, float]) -> tuple[str, float]:
    """The attribute that the oracle reads least often, and how often that is."""
    return min(((name, scores[f"oracle/{name}"]) for name in ATTRIBUTES), key=lambda pair: pair[1])


def latent_statistics(
    params: Params, config: VAEConfig, source: WorldSource
) -> tuple[Float[np.ndarray, " chan"], Float[np.ndarray, " chan"]]:
    """Mean and standard deviation of each latent channel over the first shots of all films."""
    moments = jax.jit(functools.partial(encode_moments, config=config))
    # Sums in float64: the variance is a difference of two near numbers.
    sums = np.zeros((2, config.latent_channels))
    count = 0
    for film in _films(source):
        mean, _ = moments(params, pixels=frames_to_pixels(jnp.asarray(film.frames(0))[None]))
        values = np.asarray(mean, np.float64).reshape(-1, config.latent_channels)
        sums += values.sum(0), np.square(values).sum(0)
        count += len(values)
    mean, square = sums / count
    # A floor, since later stages divide by it: a dead channel must not become infinite.
    return mean, np.sqrt(np.maximum(square - mean**2, 1e-12))


def draw_comparison(
    reconstruct: Reconstruct, params: Params, source: WorldSource, path: pathlib.Path
) -> None:
    """Write a picture of some films: true frames, and below them the reconstructions."""
    rows = []
    for index in range(min(_SHOWN_FILMS, len(source))):
        true = source[index].frames(0)
        rows += [_row(true), _row(reconstruct(params, true))]
    sheet = np.concatenate(rows)
    with atomic_file(path) as partial:
        Image.fromarray(sheet).save(partial, format="PNG")


def _films(source: WorldSource) -> Sequence[WorldFilm]:
    return [source[index] for index in range(len(source))]


def _row(frames: HostFrames) -> UInt8[np.ndarray, "tall wide 3"]:
    shown = np.linspace(0, len(frames) - 1, _SHOWN_FRAMES).round().astype(int)
    padded = np.pad(frames[shown], ((0, 0), (0, _GAP), (0, _GAP), (0, 0)))
    return np.concatenate(list(padded), axis=1)
