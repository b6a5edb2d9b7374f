"""Stage 0b: films are encoded once, for all stages that train on latents.

A film is encoded shot by shot, each whole; and the frames that later shots may be shown, each as a
picture by itself (see data/latent_films.py). Latents are of unit variance and are kept in half
precision.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.checkpoints.manager import load_network
from shotstream_jax.data.latent_films import KIND, reference_frames
from shotstream_jax.data.shards import Arrays
from shotstream_jax.data.sources import Film, FilmSource, RecordSource, WorldSource
from shotstream_jax.data.world.spec import Split
from shotstream_jax.data.world.stage import Picture
from shotstream_jax.models.vae import encode, encode_images
from shotstream_jax.models.vae_config import VAEConfig
from shotstream_jax.story import CONTEXT_BUDGET
from shotstream_jax.train.making import Making, Recipe
from shotstream_jax.train.vae import to_pixels
from shotstream_jax.train.weights import stored_config
from shotstream_jax.typing import Array, Latents, Params, UInt8


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentMaking(Making):
    """Encoding of StoryWorld films, or of films on disk; `samples` are films.

    Attributes:
      vae: checkpoint with the autoencoder.
      records: folder of a `story_world` dataset; without it films are painted while one waits.
      split: which films.
      shots: of every painted film.
      height: of a painted video frame, in pixels.
      width: likewise.
      video_frames: of a painted shot.
      budget: context frames that the networks will see.
    """

    vae: pathlib.Path
    records: pathlib.Path | None = None
    split: Split = "train"
    shots: int = 5
    height: int = 48
    width: int = 80
    video_frames: int = 21
    budget: int = CONTEXT_BUDGET

    def recipe(self) -> Recipe:
        """Bind the autoencoder and the films.

        Raises:
          ValueError: sizes that do not divide into latents, no such films, or a damaged checkpoint.
          FileNotFoundError: no checkpoint.
        """
        config = stored_config(self.vae, "vae", VAEConfig)
        films = self._films()
        if len(films) < self.samples:
            raise ValueError(
                f"{self.records} has {len(films)} {self.split} films and {self.samples} are asked "
                "for; ask for fewer (--samples), or write more."
            )
        first = films[0]
        video_frames = first.shot_lengths[0]
        height, width = first.frames(0, [0]).shape[1:3]
        clip = (
            config.latent_frames(video_frames),
            *config.latent_grid(height, width),
            config.latent_channels,
        )
        frames = reference_frames(video_frames, self.budget)
        encoder = _Encoder(load_network(self.vae, "vae", dtype=jnp.float32), config, frames)
        return Recipe(
            facts={
                "kind": KIND,
                "clip": clip,
                "shots": len(first.captions),
                "video_frames": video_frames,
                "picture": [height, width],
                "reference_frames": frames,
            },
            make=functools.partial(encoder.rows, films),
        )

    def _films(self) -> FilmSource:
        if self.records is not None:
            return RecordSource(self.records, self.split)
        return WorldSource(
            stories=self.samples,
            shots=self.shots,
            seed=self.seed,
            split=self.split,
            picture=Picture(height=self.height, width=self.width),
            video_frames=self.video_frames,
        )


class _Encoder:
    """One program a film size: all shots of a film at once."""

    def __init__(self, params: Params, config: VAEConfig, references: tuple[int, ...]) -> None:
        self._params, self._references = params, references

        @jax.jit
        def encode_film(
            params: Params, frames: UInt8[Array, "shot video_frame height width 3"]
        ) -> tuple[Latents, Latents]:
            pixels = to_pixels(frames)
            pictures = encode_images(params, config, pixels[:, jnp.asarray(references)])
            return encode(params, config, pixels), pictures

        self._encode = encode_film

    def rows(self, films: FilmSource, numbers: Sequence[int]) -> Arrays:
        """The fields of some films, one row a film."""
        rows = [self._row(films[number]) for number in numbers]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _row(self, film: Film) -> Arrays:
        frames = np.stack([film.frames(shot) for shot in range(len(film.captions))])
        clips, pictures = self._encode(self._params, frames)
        return {
            "clips": np.asarray(clips, np.float16),
            "references": np.asarray(pictures, np.float16),
            "captions": np.asarray(film.captions, np.str_),
        }
