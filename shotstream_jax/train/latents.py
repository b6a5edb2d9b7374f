"""Stage 0b: films are encoded once, for all stages that train on latents.

A film is encoded shot by shot, each whole; and the frames that later shots may be shown, each as a
picture by itself (see data/latent_films.py). Latents are of unit variance and are kept in half
precision.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from shotstream_jax.data.latent_films import KIND, reference_frames
from shotstream_jax.data.shards import Arrays
from shotstream_jax.data.sources import Film, FilmSource, RecordSource, WorldSource
from shotstream_jax.data.world.spec import Split
from shotstream_jax.data.world.stage import Picture
from shotstream_jax.models.vae import encode, encode_images
from shotstream_jax.models.vae_config import VAEConfig
from shotstream_jax.sharding import make_mesh, replicated
from shotstream_jax.story import CONTEXT_BUDGET
from shotstream_jax.train.making import Making, Recipe, SampleProgram
from shotstream_jax.train.objective import Networks
from shotstream_jax.train.programs import load_networks
from shotstream_jax.train.vae import to_pixels
from shotstream_jax.train.weights import network_weights, stored_config
from shotstream_jax.typing import Array, Float, UInt8

Encoded = tuple[Float[Array, "frame row col chan"], Float[Array, "reference row col chan"]]
"""A shot, whole; and the frames of it that later shots may be shown, each by itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentMaking(Making):
    """Encoding of StoryWorld films, or of films on disk; `samples` are films.

    Attributes:
      vae: checkpoint with the autoencoder.
      vae_config: its sizes; `None` takes them from the checkpoint.
      records: folder of a `story_world` dataset; without it films are painted while one waits.
      split: which films.
      shots: of every painted film.
      height: of a painted video frame, in pixels.
      width: likewise.
      video_frames: of a painted shot.
      budget: context frames that the networks will see.
    """

    vae: pathlib.Path
    vae_config: VAEConfig | None = None
    records: pathlib.Path | None = None
    split: Split = "train"
    shots: int = 5
    height: int = 48
    width: int = 80
    video_frames: int = 21
    budget: int = CONTEXT_BUDGET

    @property
    def sizes(self) -> VAEConfig:
        """The autoencoder's.

        Raises:
          ValueError: the checkpoint's is none.
          FileNotFoundError: no checkpoint to take them from.
        """
        return self.vae_config or stored_config(self.vae, "vae", VAEConfig)

    def program(self, mesh: Mesh) -> SampleProgram:
        """One shot: a chip does not hold more at full size."""
        config = self.sizes
        references = reference_frames(self.video_frames, self.budget)
        shape = (self.video_frames, self.height, self.width, 3)
        shot = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=replicated(mesh))
        return SampleProgram(
            function=functools.partial(_encode_shot, config, references),
            networks={"vae": network_weights(self.vae, "vae", config)},
            inputs={"shot": shot},
        )

    def recipe(self) -> Recipe:
        """Bind the autoencoder and the films.

        Raises:
          ValueError: sizes that do not divide into latents, no such films, or a damaged checkpoint.
          FileNotFoundError: no checkpoint.
        """
        films = self._films()
        if len(films) < self.samples:
            raise ValueError(
                f"{self.records} has {len(films)} {self.split} films and {self.samples} are asked "
                "for; ask for fewer (--samples), or write more."
            )
        first = films[0]
        config, video_frames = self.sizes, first.shot_lengths[0]
        height, width = first.frames(0, [0]).shape[1:3]
        clip = (
            config.latent_frames(video_frames),
            *config.latent_grid(height, width),
            config.latent_channels,
        )
        # Films on disk have sizes of their own.
        found = dataclasses.replace(self, height=height, width=width, video_frames=video_frames)
        # Every process makes shards of its own, on a device of its own.
        mesh = make_mesh(jax.local_devices()[:1])
        program = found.program(mesh)
        networks = load_networks(program.networks, mesh)
        encode_shot = functools.partial(jax.jit(program.function), networks)

        def make(numbers: Sequence[int]) -> Arrays:
            rows = [_row(films[number], encode_shot) for number in numbers]
            return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

        return Recipe(
            facts={
                "kind": KIND,
                "clip": clip,
                "shots": len(first.captions),
                "video_frames": video_frames,
                "picture": [height, width],
                "reference_frames": reference_frames(video_frames, self.budget),
            },
            make=make,
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


def _encode_shot(
    config: VAEConfig,
    references: tuple[int, ...],
    networks: Networks,
    shot: UInt8[Array, "video_frame height width 3"],
) -> Encoded:
    vae, pixels = networks["vae"], to_pixels(shot[None])
    pictures = encode_images(vae, config, pixels[:, jnp.asarray(references)])
    return encode(vae, config, pixels)[0], pictures[0]


def _row(film: Film, encode_shot: Callable[[Any], Encoded]) -> Arrays:
    """The fields of a film."""
    shots = [encode_shot(film.frames(shot)) for shot in range(len(film.captions))]
    clips, pictures = zip(*shots, strict=True)
    return {
        "clips": np.asarray(clips, np.float16),
        "references": np.asarray(pictures, np.float16),
        "captions": np.asarray(film.captions, np.str_),
    }
