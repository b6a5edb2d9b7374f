"""Stage 2b as a run: the causal student learns to end where the teacher's trajectories end."""

import dataclasses
import functools
import pathlib
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from shotstream_jax.data.shards import ShardReader
from shotstream_jax.data.transforms import Sample
from shotstream_jax.models.compute import Compute
from shotstream_jax.rollout.conditioning import apply_dropout, draw_dropout, shot_conditioning
from shotstream_jax.train.engine.optimizer import Objective, OptimizerConfig
from shotstream_jax.train.engine.stage import Batches, Stage
from shotstream_jax.train.engine.weights import network_weights
from shotstream_jax.train.losses import LossAux, LossInputs, LossOutput
from shotstream_jax.train.objectives.causal_init import OdePair, causal_init_loss, draw_levels
from shotstream_jax.train.stages.ode_pairs import KIND
from shotstream_jax.train.stages.transformer import EncodeIds, TransformerTraining, check_clip


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalInitTraining(TransformerTraining):
    """Regression of the causal student to the ends of trajectories.

    Attributes:
      teacher: checkpoint with the teacher, which the student starts as.
      pairs: folder of its trajectories.
      optimizer: of the transformer.
      text_dropout: share of samples that are trained without captions.
    """

    teacher: pathlib.Path
    pairs: pathlib.Path
    optimizer: OptimizerConfig
    text_dropout: float = 0.1

    STAGE: ClassVar = "causal_init"

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
        )
        # The student is the teacher with a causal mask: both have the same parameters.
        start = network_weights(self.teacher, "dit", self.model.dit, made_by=("teacher",))
        # The input of every few step, and the clean end.
        states = len(self.model.rollout.steps) + 1
        return Stage(
            objectives={"generator": objective},
            weights={"generator": start},
            frozen={
                "text": network_weights(self.teacher, "text", self.model.text, dtype=compute.dtype)
            },
            batches=self._batches,
            batch_shapes={**self.shapes.conditioning(), "trajectory": self.shapes.latents(states)},
            network_for_step=lambda step: "generator",
            validation=lambda: self.film_validation(
                "student", self.teacher, lambda networks: networks["generator"], compute
            ),
            finish=functools.partial(self.export, self.teacher, "generator"),
        )

    def _batches(self) -> Batches:
        pairs = ShardReader(self.pairs, KIND)
        check_clip(pairs.facts, self.latent_shape, self.pairs)
        if tuple(pairs.facts["levels"]) != self.model.rollout.steps:
            raise ValueError(
                f"{self.pairs} holds trajectories at levels {tuple(pairs.facts['levels'])} and the "
                f"rollout's are {self.model.rollout.steps}; sample them again, or change them."
            )
        return self.loader(pairs, _single_precision)

    def _loss(
        self, compute: Compute, encode: EncodeIds, params: Any, inputs: LossInputs
    ) -> LossOutput:
        batch = inputs.batch
        text = encode(inputs.networks["text"], ids=batch["ids"], mask=batch["mask"])
        conditioning = shot_conditioning(
            batch["context"],
            batch["context_shot"],
            batch["target_shot"],
            jax.lax.stop_gradient(text),
        )
        dropout_keys, level_keys = jax.vmap(jax.random.split, out_axes=1)(inputs.keys.per_sample)
        # The context is never dropped: a trajectory was sampled with it, and without it its end
        # could not be predicted. Captions are, in the share of the teacher's training.
        dropout = draw_dropout(dropout_keys, context=0.0, text=self.text_dropout)
        chunks = self.clip.frames // self.model.rollout.window.chunk
        levels = draw_levels(level_keys, chunks, len(self.model.rollout.steps))
        conditioning = apply_dropout(conditioning, dropout)
        pair = OdePair(conditioning=conditioning, trajectory=batch["trajectory"])
        loss, errors = causal_init_loss(
            params,
            self.model.dit,
            pair,
            levels,
            rollout=self.model.rollout,
            compute=compute,
        )
        # By level: high ones have by far the larger errors, and would hide the others in one mean.
        by_level = {
            f"error_{level}": jnp.sum(errors * (levels == place))
            / jnp.maximum(jnp.sum(levels == place), 1)
            for place, level in enumerate(self.model.rollout.steps)
        }
        return loss, LossAux(metrics=by_level)


def _single_precision(sample: Sample, rng: np.random.Generator) -> Sample:
    # Stored in half precision, in which squares of errors below 2e-4 would be zero.
    del rng
    return {**sample, "trajectory": sample["trajectory"].astype(np.float32)}
