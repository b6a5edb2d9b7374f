"""Stage 0b: films are encoded once, for all stages that train on latents.

A film is encoded shot by shot, each whole; and the possible context frames of later shots, each as
a picture by itself (see data/latent_films.py). Latents are of unit variance and are kept in half
precision.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from shotstream_jax.data.latent_films import LATENT_FILMS, reference_frames
from shotstream_jax.data.shards import Arrays
from shotstream_jax.data.sources import FilmSource, RecordSource
from shotstream_jax.model_config import ModelConfig
from shotstream_jax.models.configs import VAEConfig
from shotstream_jax.models.vae import encode, encode_images, frames_to_pixels
from shotstream_jax.sharding import each_sample, sample_sharding
from shotstream_jax.story import CONTEXT_BUDGET
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.source import WorldSource
from shotstream_jax.storyworld.spec import Split
from shotstream_jax.train.engine.compiled import load_networks, mesh_of
from shotstream_jax.train.engine.dataset_job import DatasetJob, SampleBuilder, SampleProgram
from shotstream_jax.train.engine.weights import measured_vae, network_weights
from shotstream_jax.train.losses import ParamsByNetwork
from shotstream_jax.typing import Array, Float, UInt8

Encoded = tuple[Float[Array, "frame row col chan"], Float[Array, "reference row col chan"]]
"""A shot, whole; and its possible context frames, each by itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentDataset(DatasetJob):
    """Encoding of StoryWorld films, or of films on disk; `samples` are films.

    Attributes:
      vae: checkpoint with the autoencoder.
      model: the model that the latents are for, of which the autoencoder's sizes are read. The
        statistics of latents are taken from the checkpoint.
      records: folder of a `story_world` dataset; without it films are painted as they are encoded.
      split: which films.
      shots: of every painted film.
      height: of a painted video frame, in pixels.
      width: likewise.
      video_frames: of a painted shot.
      budget: context frames that the networks will see.
    """

    vae: pathlib.Path
    model: ModelConfig
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
          ValueError: the checkpoint's has other sizes.
        """
        return measured_vae(self.vae, self.model.vae)

    def program(self, mesh: Mesh) -> SampleProgram:
        """The shots of a shard, one after another: a chip does not hold more at full size."""
        config = self.sizes
        references = reference_frames(self.video_frames, self.budget)
        shots = (self.shard * self.shots, self.video_frames, self.height, self.width, 3)
        place = sample_sharding(shots[0], mesh)
        return SampleProgram(
            function=each_sample(functools.partial(_encode_shot, config, references), mesh),
            networks={"vae": network_weights(self.vae, "vae", config)},
            inputs={"shots": jax.ShapeDtypeStruct(shots, jnp.uint8, sharding=place)},
        )

    def builder(self) -> SampleBuilder:
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
        config, shots, video_frames = self.sizes, len(first.captions), first.shot_lengths[0]
        height, width = first.frames(0, [0]).shape[1:3]
        clip = (
            config.latent_frames(video_frames),
            *config.latent_grid(height, width),
            config.latent_channels,
        )
        # Films on disk have sizes of their own.
        found = {"shots": shots, "video_frames": video_frames, "height": height, "width": width}
        mesh = mesh_of(self.mesh)
        program = dataclasses.replace(self, **found).program(mesh)
        networks = load_networks(program.networks, mesh)
        encode_shots = jax.jit(program.function)

        def build(numbers: Sequence[int]) -> Arrays:
            some = [films[number] for number in numbers]
            frames = np.stack([film.frames(shot) for film in some for shot in range(shots)])
            place = sample_sharding(len(frames), mesh)
            encoded = encode_shots(networks, jax.device_put(frames, place))
            # Unit variance: float16 has three digits there, and a film is half as large.
            clips, references = (
                np.asarray(part, np.float16).reshape(len(some), shots, *part.shape[1:])
                for part in encoded
            )
            captions = np.asarray([film.captions for film in some], np.str_)
            return {"clips": clips, "references": references, "captions": captions}

        return SampleBuilder(
            facts={
                "kind": LATENT_FILMS,
                "clip": clip,
                "shots": shots,
                "video_frames": video_frames,
                "picture": [height, width],
                "reference_frames": reference_frames(video_frames, self.budget),
            },
            build=build,
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
    networks: ParamsByNetwork,
    shot: UInt8[Array, "video_frame height width 3"],
) -> Encoded:
    # Context frames are encoded one by one, as filming encodes them: a latent of the clip holds
    # four video frames, and depends on those before.
    vae, pixels = networks["vae"], frames_to_pixels(shot[None])
    pictures = encode_images(vae, config, pixels[:, jnp.asarray(references)])
    return encode(vae, config, pixels)[0], pictures[0]
