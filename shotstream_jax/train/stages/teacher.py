"""Stage 1 as a run: the bidirectional teacher learns the next shot from frames of earlier ones."""

import dataclasses
import functools
import pathlib
from typing import Any, ClassVar

import jax
from jax.sharding import Mesh

from shotstream_jax.data.latent_films import LatentFilms
from shotstream_jax.data.transforms import ShotWithContext
from shotstream_jax.models.compute import Compute
from shotstream_jax.rollout.conditioning import apply_dropout, draw_dropout, shot_conditioning
from shotstream_jax.schedule import FlowSchedule, draw_flow_noise
from shotstream_jax.story import ContextCaptions, ContextPolicy
from shotstream_jax.train.engine.optimizer import Objective, OptimizerConfig
from shotstream_jax.train.engine.stage import Batches, Stage
from shotstream_jax.train.engine.weights import network_weights
from shotstream_jax.train.losses import LossAux, LossInputs, LossOutput
from shotstream_jax.train.objectives.flow_matching import (
    Clip,
    Trainable,
    teacher_loss,
    trainable_mask,
)
from shotstream_jax.train.stages.transformer import EncodeIds, TransformerTraining, check_clip


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherTraining(TransformerTraining):
    """Training of the next-shot teacher, from a text-to-video model.

    Attributes:
      start: checkpoint with the model to start from.
      latents: folder of encoded films.
      optimizer: of the transformer.
      trainable: which of its parameters are trained. The released teacher trained self-attention
        alone, where context and target meet: a text-to-video model knows all the rest.
      context_dropout: share of samples that are trained without context, as first shots.
      text_dropout: share of samples that are trained without captions.
      policy: which frames of earlier shots are seen.
      context_captions: whose caption they read.
    """

    start: pathlib.Path
    latents: pathlib.Path
    optimizer: OptimizerConfig
    trainable: Trainable = "self_attention"
    context_dropout: float = 0.1
    text_dropout: float = 0.1
    policy: ContextPolicy = "anchor"
    context_captions: ContextCaptions = "own"

    STAGE: ClassVar = "teacher"

    def stage(self, mesh: Mesh) -> Stage:
        """Bind everything that the loop calls.

        Raises:
          ValueError: sizes that do not fit together.
        """
        compute = self.compute.on(mesh, self.model.dit.head_dim)
        objective = Objective(
            loss=functools.partial(self._loss, compute, self.encode_ids),
            optimizer=self.optimizer,
            accumulate=self.accumulate,
            trainable=functools.partial(trainable_mask, which=self.trainable),
        )
        return Stage(
            objectives={"teacher": objective},
            # A base of any origin: the released teacher started from Wan2.1's text-to-video model,
            # which knows no shots, and a converted checkpoint names no stage.
            weights={"teacher": network_weights(self.start, "dit", self.model.dit)},
            frozen={
                "text": network_weights(self.start, "text", self.model.text, dtype=compute.dtype)
            },
            batches=self._batches,
            batch_shapes=self.shapes.shots(),
            network_for_step=lambda step: "teacher",
            validation=lambda: self.film_validation(
                "teacher", self.start, lambda networks: networks["teacher"], compute
            ),
            finish=functools.partial(self.export, self.start, "teacher"),
        )

    def _batches(self) -> Batches:
        films = LatentFilms(self.latents)
        check_clip(films.facts, self.latent_shape, self.latents)
        tokenize = self.tokenizer(self.start).tokenize
        budget = self.model.rollout.window.context
        transform = ShotWithContext(
            tokenize, budget=budget, policy=self.policy, captions=self.context_captions
        )
        return self.loader(films, transform)

    def _loss(
        self, compute: Compute, encode: EncodeIds, params: Any, inputs: LossInputs
    ) -> LossOutput:
        batch = inputs.batch
        text = encode(inputs.networks["text"], ids=batch["ids"], mask=batch["mask"])
        # Frozen, as the released UMT5 is; the base alone trains a text encoder.
        conditioning = shot_conditioning(
            batch["context"],
            batch["context_shot"],
            batch["target_shot"],
            jax.lax.stop_gradient(text),
        )
        # Two keys of every sample, so that another share of dropout leaves its noise as it was.
        dropout_keys, flow_keys = jax.vmap(jax.random.split, out_axes=1)(inputs.keys.per_sample)
        # Both dropped branches are what guidance, and the real score's later, compares with;
        # context dropout is also how a teacher of next shots learns first ones.
        dropout = draw_dropout(dropout_keys, context=self.context_dropout, text=self.text_dropout)
        schedule = FlowSchedule(shift=self.model.rollout.shift)
        loss, errors = teacher_loss(
            params,
            self.model.dit,
            Clip(
                conditioning=apply_dropout(conditioning, dropout),
                latents=batch["target"],
            ),
            draw_flow_noise(flow_keys, self.latent_shape, schedule.timesteps),
            schedule=schedule,
            compute=compute,
        )
        return loss, LossAux(metrics={"error": errors.mean()})
