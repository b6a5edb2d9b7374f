"""Settings of all stages that train a transformer: sizes, batches, validation and export."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from shotstream_jax.checkpoints.manager import TOKENIZER, load_network
from shotstream_jax.data.encode import text_encoder_fn
from shotstream_jax.data.loader import Films, LoaderConfig, make_loader
from shotstream_jax.data.tokenizer import Tokenizer, load_tokenizer
from shotstream_jax.data.transforms import Transform
from shotstream_jax.evaluation.films import EvalSetup
from shotstream_jax.evaluation.generators import TransformerRole
from shotstream_jax.evaluation.validation_films import ValidationFilms, validate_films
from shotstream_jax.model_config import ModelConfig
from shotstream_jax.models.compute import FORMATS, AttentionBackend, Compute, Remat, default_compute
from shotstream_jax.models.text_encoder import encode_padded
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.train.engine.stage import Batches, Scores, Training, Validate
from shotstream_jax.train.engine.weights import export_model, measured_vae, training_facts
from shotstream_jax.train.losses import ParamsByNetwork
from shotstream_jax.train.stages.batch_shapes import BatchShapes
from shotstream_jax.typing import Params, Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipShape:
    """Size of a shot's latents.

    Attributes:
      frames: latent frames.
      rows: of latents.
      cols: of latents.
    """

    # The released model's shots: 81 video frames of 480 x 832 under strides of 4 and 8.
    frames: int = 21
    rows: int = 60
    cols: int = 104


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How networks compute; trained parameters are float32 in any case.

    Attributes:
      dtype: format of activations, and of parameters that are not trained.
      attention: backend of attention; `None` is the fastest of the devices.
      remat: what the backward pass computes again.
    """

    # bfloat16 and not float16: it has float32's range, so that no loss scale is needed. Full
    # rematerialisation, since activations of 27 frames (42 120 tokens) through 30 blocks do not
    # fit.

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    attention: AttentionBackend | None = None
    remat: Remat = "full"

    @property
    def format(self) -> Any:
        """`dtype` as an array has it."""
        return FORMATS[self.dtype]

    def on(self, mesh: Mesh, head_dim: int) -> Compute:
        """The same, as networks with such heads take it on some devices."""
        # Asked of the mesh's devices, not of the default ones: programs are also lowered for chips
        # that this host does not have.
        fast = default_compute(head_dim, self.format, mesh.devices.flat[0].platform, mesh)
        attention = fast.attention if self.attention is None else self.attention
        return dataclasses.replace(fast, attention=attention, remat=self.remat)


EncodeIds = Callable[..., Text]
"""`(params, ids=, mask=) -> text`: the captions of a batch, encoded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerTraining(Training):
    """Settings of every stage that trains a transformer.

    Attributes:
      model: sizes of all networks, and chunks, few steps and shift of the model that comes out. The
        statistics of its latents are taken from the autoencoder's checkpoint.
      clip: size of a shot's latents.
      batch: samples of a step, on all devices together.
      accumulate: microbatches that a batch is split into.
      compute: how networks compute.
      validation_stories: stories that a validation films.
      guidance: of a teacher that films them.
    """

    model: ModelConfig
    clip: ClipShape
    batch: int
    accumulate: int = 1
    compute: ComputeConfig = ComputeConfig()
    validation_stories: int = 6
    # Of the teacher's sampling in the public repository, which its trajectories use too.
    guidance: float = 6.0

    MAY_CHANGE: ClassVar = Training.MAY_CHANGE | {"validation_stories", "guidance"}

    STAGE: ClassVar[str]
    """Name of the stage, as its exports say it."""

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Frames, rows, columns and channels of a shot."""
        return (self.clip.frames, self.clip.rows, self.clip.cols, self.model.dit.latent_channels)

    @property
    def shapes(self) -> BatchShapes:
        """Of what the batches of all devices together hold."""
        return BatchShapes(
            batch=self.batch,
            clip=self.latent_shape,
            slots=self.model.rollout.window.context,
            text_tokens=self.model.dit.text_tokens,
        )

    @property
    def encode_ids(self) -> EncodeIds:
        """The text encoder for batches of token ids; bound once, before a step is traced."""
        # Parameters stay open: the base trains the text encoder, all other stages freeze it.
        return functools.partial(
            encode_padded,
            config=self.model.text,
            text_tokens=self.model.dit.text_tokens,
            dtype=self.compute.format,
        )

    def tokenizer(self, folder: pathlib.Path) -> Tokenizer:
        """The tokenizer of a checkpoint, for captions as long as the transformer reads.

        Raises:
          FileNotFoundError: the checkpoint has none.
        """
        return load_tokenizer(folder / TOKENIZER, length=self.model.dit.text_tokens)

    def loader(self, films: Films, transform: Transform) -> Batches:
        """Shuffled batches of this process."""
        # The settings name the batch of all processes: a run keeps its numbers on other machines.
        processes = jax.process_count()
        config = LoaderConfig(
            batch=self.batch // processes,
            seed=self.seed,
            process_index=jax.process_index(),
            process_count=processes,
        )
        return iter(make_loader(films, transform, config))

    def film_validation(
        self,
        role: TransformerRole,
        source: pathlib.Path,
        transformer: Callable[[ParamsByNetwork], Params],
        compute: Compute,
    ) -> Validate:
        """Validation by films: the transformer in training with the other networks of a checkpoint.

        Raises:
          FileNotFoundError: no checkpoint, or one without a tokenizer.
        """
        # The statistics of latents travel with the checkpoint; the settings hold none.
        vae = measured_vae(source, self.model.vae)
        encode_text = text_encoder_fn(
            load_network(source, "text", dtype=compute.dtype),
            self.model.text,
            self.tokenizer(source),
            text_tokens=self.model.dit.text_tokens,
            dtype=compute.dtype,
        )
        fixed = Networks(
            config=dataclasses.replace(self.model, vae=vae),
            # Filled at each validation with the parameters in training.
            dit={},
            vae=load_network(source, "vae", dtype=jnp.float32),
            encode_text=encode_text,
            compute=compute,
            decode_dtype=compute.dtype,
        )
        stride = vae.spatial_stride
        picture = Picture(height=self.clip.rows * stride, width=self.clip.cols * stride)
        films = ValidationFilms(
            role=role,
            setup=EvalSetup(picture=picture, video_frames=vae.video_frames(self.clip.frames)),
            stories=self.validation_stories,
            guidance=self.guidance,
        )

        def validate(networks: ParamsByNetwork, folder: pathlib.Path, step: int) -> Scores:
            film = dataclasses.replace(fixed, dit=transformer(networks))
            sheet = folder / f"step_{step:06d}.png"
            return validate_films(film, films, sheet, title=f"{role} after step {step}")

        return validate

    def export(
        self,
        source: pathlib.Path,
        network: str,
        networks: ParamsByNetwork,
        folder: pathlib.Path,
    ) -> Scores:
        """Write a whole model with one of the networks as its transformer."""
        facts = training_facts(self.STAGE, self.steps, self.seed)
        export_model(folder, source, networks[network], self.model, training=facts)
        return {}


def check_clip(found: Mapping[str, Any], wanted: tuple[int, ...], folder: pathlib.Path) -> None:
    """Refuse latents of another size than the config says.

    Raises:
      ValueError: with both sizes.
    """
    if tuple(found["clip"]) != wanted:
        raise ValueError(
            f"{folder} holds clips of {tuple(found['clip'])} (frames, rows, columns, channels) and "
            f"the config says {wanted}; make the latents again, or change clip and dit."
        )
