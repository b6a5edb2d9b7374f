"""Stage 0 as a run: the settings of an autoencoder's training on StoryWorld, bound for the loop.

Latents are not normalised during training. When it is over, their mean and deviation are measured
and written into the exported config, so that later stages see unit Gaussians, roughly.
"""

import dataclasses
import functools
import pathlib
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from shotstream_jax.checkpoints.manager import load_network, save_checkpoint
from shotstream_jax.model_config import CheckpointConfig
from shotstream_jax.models.compute import FORMATS
from shotstream_jax.models.configs import VAEConfig
from shotstream_jax.models.vae import frames_to_pixels
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.source import WorldSource
from shotstream_jax.storyworld.spec import Split
from shotstream_jax.train.engine.optimizer import Objective, OptimizerConfig
from shotstream_jax.train.engine.stage import Scores, Stage, Training, Weights, random_weights
from shotstream_jax.train.engine.weights import (
    check_origin,
    lineage,
    measured_vae,
    training_facts,
)
from shotstream_jax.train.losses import LossInputs, LossOutput, ParamsByNetwork
from shotstream_jax.train.objectives.vae import VAELoss, init_inflated, vae_loss
from shotstream_jax.train.stages.clips import Phase, PhasedClips, phase_ends
from shotstream_jax.train.stages.vae_score import (
    Reconstruct,
    draw_comparison,
    latent_statistics,
    reconstructor,
    score_reconstructions,
    worst_attribute,
)
from shotstream_jax.typing import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAETraining(Training):
    """Training of an autoencoder on films that a program paints.

    Attributes:
      vae: its sizes; mean and deviation of the latents are measured, whatever is given.
      optimizer: how it moves.
      phases: lengths of clips, one after the other.
      start: checkpoint with an autoencoder to go on from; `None` begins with a random one.
      loss: weights of the terms.
      height: of a video frame, in pixels.
      width: likewise.
      video_frames: of a shot.
      stories: films to train on.
      accumulate: pieces that a batch is cut into.
      compute: number format of activations; parameters are float32.
      validation_stories: held-out stories, of two shots each, that a validation scores.
      test_stories: held-out stories that score the finished network.
      min_oracle_accuracy: least share of them on which the oracle must read each attribute right.
    """

    vae: VAEConfig
    optimizer: OptimizerConfig
    phases: tuple[Phase, ...]
    start: pathlib.Path | None = None
    loss: VAELoss = dataclasses.field(default_factory=VAELoss)
    height: int = 64
    width: int = 96
    video_frames: int = 21
    stories: int = 4096
    accumulate: int = 1
    compute: Literal["float32", "bfloat16"] = "float32"
    validation_stories: int = 24
    test_stories: int = 100
    min_oracle_accuracy: float = 0.95

    MAY_CHANGE: ClassVar = Training.MAY_CHANGE | {
        "validation_stories",
        "test_stories",
        "min_oracle_accuracy",
    }

    def stage(self, mesh: Mesh) -> Stage:
        """Bind everything that the loop calls.

        Raises:
          ValueError: pictures, clips or phases that do not fit together.
        """
        self.vae.latent_grid(self.height, self.width)
        for phase in self.phases:
            self.vae.latent_frames(phase.video_frames)
        # Called for its error alone: shares are refused before any network is made.
        phase_ends(self.phases, self.steps)
        films = self._films("train", self.stories)
        reconstruct = reconstructor(self.raw)
        objective = Objective(loss=self._loss, optimizer=self.optimizer, accumulate=self.accumulate)
        return Stage(
            objectives={"vae": objective},
            weights={"vae": self._weights()},
            batches=lambda: PhasedClips(films, self.phases, self.steps, self.seed),
            network_for_step=lambda step: "vae",
            validation=lambda: functools.partial(self._validate, reconstruct),
            finish=functools.partial(self._finish, reconstruct),
        )

    @property
    def raw(self) -> VAEConfig:
        """The sizes, with latents that are not normalised."""
        channels = self.vae.latent_channels
        return dataclasses.replace(
            self.vae, latent_mean=(0.0,) * channels, latent_std=(1.0,) * channels
        )

    def _weights(self) -> Weights:
        init = functools.partial(init_inflated, config=self.vae)
        if self.start is None:
            return random_weights(init, self.seed)
        return Weights(
            shapes=jax.eval_shape(init, jax.random.key(0)),
            load=functools.partial(self._go_on, self.start),
        )

    def _go_on(self, start: pathlib.Path, shardings: Any) -> Params:
        """Load an autoencoder of these sizes, whatever its latents were measured to be."""
        # With the checkpoint's own statistics, since only sizes have to agree.
        check_origin(start, "vae", measured_vae(start, self.vae), ())
        return load_network(start, "vae", dtype=jnp.float32, shardings=shardings)

    def _films(self, split: Split, stories: int) -> WorldSource:
        return WorldSource(
            stories=stories,
            shots=2,
            seed=self.seed,
            split=split,
            picture=Picture(height=self.height, width=self.width),
            video_frames=self.video_frames,
        )

    def _loss(self, params: Any, inputs: LossInputs) -> LossOutput:
        pixels = frames_to_pixels(inputs.batch["pixels"])
        # `raw`: statistics are measured at the end, and a run that starts from a measured
        # checkpoint would otherwise divide by them twice.
        keys, dtype = inputs.keys.per_sample, FORMATS[self.compute]
        return vae_loss(params, self.raw, pixels, keys, loss=self.loss, dtype=dtype)

    def _validate(
        self, reconstruct: Reconstruct, networks: ParamsByNetwork, folder: pathlib.Path, step: int
    ) -> Scores:
        films = self._films("validation", self.validation_stories)
        draw_comparison(reconstruct, networks["vae"], films, folder / f"step_{step:06d}.png")
        return score_reconstructions(reconstruct, networks["vae"], films)

    def _finish(
        self, reconstruct: Reconstruct, networks: ParamsByNetwork, folder: pathlib.Path
    ) -> Scores:
        """Score, measure the latents, and export.

        Raises:
          ValueError: an attribute that the oracle reads too rarely on reconstructions.
        """
        films = self._films("test", self.test_stories)
        scores = score_reconstructions(reconstruct, networks["vae"], films)
        worst, share = worst_attribute(scores)
        # Every later stage is scored by the oracle on decoded films: an attribute that the
        # autoencoder blurs would be charged to the transformer.
        if share < self.min_oracle_accuracy:
            raise ValueError(
                f"The oracle reads {worst} on {share:.2f} of reconstructions and "
                f"{self.min_oracle_accuracy:.2f} is required; train on (--steps {2 * self.steps} "
                "--resume), or export as it is (--min-oracle-accuracy 0 --resume)."
            )
        raw, known = self.raw, self._films("train", min(self.test_stories, self.stories))
        # On training films: test films are for scores.
        mean, deviation = latent_statistics(networks["vae"], raw, known)
        measured = dataclasses.replace(
            raw, latent_mean=tuple(mean.tolist()), latent_std=tuple(deviation.tolist())
        )
        facts = training_facts("vae", self.steps, self.seed, scores)
        config = CheckpointConfig(
            networks={"vae": measured},
            weights="trained",
            training={**facts, "after": lineage(self.start) if self.start else []},
        )
        save_checkpoint(folder, {"vae": networks["vae"]}, config)
        return scores
