"""Stage 3 as a run: distribution matching inside a shot, on true history.

Generator and critic are trained in turns, the generator first and then the critic several times.
Both losses roll the generator out by self-forcing; context frames are those of the film that the
captions come from.

Source: public ShotStream repository, trainer/distillation_frameconcat.py.
"""

import dataclasses
import functools
import pathlib
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from shotstream_jax.data.latent_films import LatentFilms
from shotstream_jax.data.transforms import Sample, ShotWithContext, Tokenize, Transform
from shotstream_jax.models.compute import Compute
from shotstream_jax.rollout.conditioning import (
    Conditioning,
    apply_dropout,
    draw_dropout,
    shot_conditioning,
)
from shotstream_jax.schedule import draw_flow_noise
from shotstream_jax.story import ContextPolicy
from shotstream_jax.train.engine.optimizer import Objective, OptimizerConfig
from shotstream_jax.train.engine.stage import Batches, Stage, Weights
from shotstream_jax.train.engine.weights import network_weights
from shotstream_jax.train.losses import (
    Batch,
    Loss,
    LossAux,
    LossInputs,
    LossOutput,
    ParamsByNetwork,
    StepKeys,
)
from shotstream_jax.train.objectives.dmd import (
    DMDConfig,
    GeneratorNoise,
    NegativeText,
    ScoreNetworks,
    critic_loss,
    generator_loss,
)
from shotstream_jax.train.objectives.self_forcing import (
    History,
    RolloutResult,
    SelfForcing,
    draw_rollout_noise,
    rollout_no_grad,
)
from shotstream_jax.train.stages.transformer import EncodeIds, TransformerTraining, check_clip
from shotstream_jax.typing import Array, Float, Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationTraining(TransformerTraining):
    """Settings and losses of both distillation stages.

    Attributes:
      generator: checkpoint with the student to start from.
      teacher: checkpoint with the teacher: the real score, and what the critic starts as.
      optimizer: of the generator.
      critic_optimizer: of the critic.
      dmd: at which noise levels the scores are compared, and how the real one is guided.
      generator_every: steps from one of the generator to its next; all others are the critic's,
        which must keep up with the generator's distribution (DMD2: five updates for each of the
        generator's).
      history: what later chunks and shots see: the prediction that is trained, or finished frames.
      context_dropout: share of shots that are generated and scored as first shots.
      negative: prompt that guidance leads away from; `None` is zeros, as dropped captions are.
    """

    generator: pathlib.Path
    teacher: pathlib.Path
    optimizer: OptimizerConfig
    critic_optimizer: OptimizerConfig
    dmd: DMDConfig
    generator_every: int = 6
    history: History = "exit"
    context_dropout: float = 0.1
    negative: str | None = None

    @property
    def forcing(self) -> SelfForcing:
        """How the generator is rolled out."""
        return SelfForcing(rollout=self.model.rollout, history=self.history)

    def network_for_step(self, step: int) -> str:
        """Which network a step trains."""
        # Step 0 is the generator's, as in the public trainer.
        return "generator" if step % self.generator_every == 0 else "fake_score"

    def objectives(self, generator: Loss, critic: Loss) -> dict[str, Objective]:
        """How both networks learn, each by its loss."""
        return {
            "generator": Objective(
                loss=generator, optimizer=self.optimizer, accumulate=self.accumulate
            ),
            "fake_score": Objective(
                loss=critic, optimizer=self.critic_optimizer, accumulate=self.accumulate
            ),
        }

    def generator_loss_on_shot(
        self,
        compute: Compute,
        encode: EncodeIds,
        params: Params,
        inputs: LossInputs,
        conditioning: Conditioning,
    ) -> tuple[Float[Array, ""], RolloutResult, dict[str, Array]]:
        """The generator's loss on one shot, the shot that it rolled out, and what to plot."""
        networks, keys = inputs.networks, inputs.keys
        loss, aux = generator_loss(
            params,
            self.model.dit,
            ScoreNetworks(real=networks["real_score"], fake=networks["fake_score"]),
            conditioning,
            self._negative(encode, networks, inputs.batch),
            self._noise(keys, conditioning),
            forcing=self.forcing,
            dmd=self.dmd,
            compute=compute,
        )
        return loss, aux.result, {"direction_abs_mean": aux.direction_abs_mean}

    def critic_loss_on_shot(
        self, compute: Compute, params: Params, inputs: LossInputs, conditioning: Conditioning
    ) -> tuple[Float[Array, ""], RolloutResult]:
        """The critic's loss on one shot of the generator's, and that shot."""
        # Rolled out anew and without gradient: the critic must follow the generator of this step,
        # and films of an earlier one would describe another distribution.
        noise = self._noise(inputs.keys, conditioning)
        result = rollout_no_grad(
            inputs.networks["generator"],
            self.model.dit,
            conditioning,
            noise.rollout,
            forcing=self.forcing,
            compute=compute,
        )
        # The exit predictions, of all few-step levels in turn: the generator is scored on those.
        loss, _ = critic_loss(
            params,
            self.model.dit,
            conditioning,
            result.latents,
            noise.score,
            dmd=self.dmd,
            compute=compute,
        )
        return loss, result

    def drop_context(
        self, conditioning: Conditioning, inputs: LossInputs
    ) -> tuple[Conditioning, LossInputs]:
        """Apply context dropout; returns the inputs with the keys that are still unused."""
        dropout_keys, unused = _split(inputs.keys.per_sample)
        # Captions stay, as in the public trainer: a film always has them. Dropped before the
        # rollout, so that generator and both scores agree on which shots are first ones.
        dropout = draw_dropout(dropout_keys, context=self.context_dropout, text=0.0)
        keys = StepKeys(shared=inputs.keys.shared, per_sample=unused)
        return apply_dropout(conditioning, dropout), dataclasses.replace(inputs, keys=keys)

    def _noise(self, keys: StepKeys, conditioning: Conditioning) -> GeneratorNoise:
        """Draws of a rollout and its scoring, of a shot as large as its context frames."""
        # Split again, after dropout took its part: rollout and score must not share noise, or the
        # score would see the very noise that the latents were made from.
        rollout_keys, score_keys = _split(keys.per_sample)
        shape = (self.clip.frames, *conditioning.context.shape[2:])
        return GeneratorNoise(
            rollout=draw_rollout_noise(keys.shared, rollout_keys, shape, self.model.rollout),
            score=draw_flow_noise(score_keys, shape, self.dmd.timestep_table),
        )

    def scores_start(self) -> dict[str, Weights]:
        """The teacher, as the critic starts as it."""
        # As in DMD2: with scores that agree, the first direction is that of guidance alone, and the
        # critic need not learn films from nothing. Float32, since it learns.
        return {"fake_score": self._teacher(jnp.float32)}

    def frozen_weights(self) -> dict[str, Weights]:
        """The teacher as the real score, and the text encoder."""
        # In the format of activations: what is never trained needs no float32 master, and the
        # teacher is then half as large.
        dtype = self.compute.format
        return {
            "real_score": self._teacher(dtype),
            "text": network_weights(self.teacher, "text", self.model.text, dtype=dtype),
        }

    def generator_start(self, *made_by: str) -> Weights:
        """The student to start from."""
        return network_weights(self.generator, "dit", self.model.dit, made_by=made_by)

    def with_negative(self, tokenize: Tokenize, transform: Transform) -> Transform:
        """A transform whose samples carry the negative prompt too, if there is one."""
        if self.negative is None:
            return transform
        # As token ids in the batch: the loss must be a function of its inputs alone, and the text
        # encoder's parameters are sharded arrays that only the step sees.
        ids, mask = tokenize([self.negative])

        def both(film: Any, rng: np.random.Generator) -> Sample:
            return {**transform(film, rng), "negative_ids": ids, "negative_mask": mask}

        return both

    def negative_shapes(self) -> dict[str, Any]:
        """Shapes of what `with_negative` adds."""
        if self.negative is None:
            return {}
        shapes = self.shapes.captions(1)
        return {f"negative_{name}": shape for name, shape in shapes.items()}

    def _negative(self, encode: EncodeIds, networks: ParamsByNetwork, batch: Batch) -> NegativeText:
        if self.negative is None:
            # What the teacher was trained on with captions dropped, so that it knows this branch;
            # the public recipe leads away from a prompt that no training showed it.
            return jnp.zeros((1, 1, self.model.dit.text_tokens, self.model.dit.text_dim))
        # Every sample carries the same prompt; it is encoded once.
        one = {name: batch[f"negative_{name}"][:1] for name in ("ids", "mask")}
        return jax.lax.stop_gradient(encode(networks["text"], **one))

    def _teacher(self, dtype: DTypeLike) -> Weights:
        return network_weights(
            self.teacher, "dit", self.model.dit, dtype=dtype, made_by=("teacher",)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class IntraShotTraining(DistillationTraining):
    """Distribution matching of single shots, on true history.

    Attributes:
      latents: folder of encoded films.
      policy: which frames of earlier shots are seen.
    """

    latents: pathlib.Path
    policy: ContextPolicy = "anchor"

    STAGE: ClassVar = "dmd_intra"

    def stage(self, mesh: Mesh) -> Stage:
        """Bind everything that the loop calls.

        Raises:
          ValueError: sizes that do not fit together.
        """
        compute = self.compute.on(mesh, self.model.dit.head_dim)
        bound = (compute, self.encode_ids)
        losses = (functools.partial(loss, *bound) for loss in (self._generator, self._critic))
        return Stage(
            objectives=self.objectives(*losses),
            weights={
                # A teacher's too, to compare with distillation that skips the causal start.
                "generator": self.generator_start("causal_init", "teacher"),
                **self.scores_start(),
            },
            frozen=self.frozen_weights(),
            batches=self._batches,
            batch_shapes={**self.shapes.shots(), **self.negative_shapes()},
            network_for_step=self.network_for_step,
            validation=lambda: self.film_validation(
                "student", self.generator, lambda networks: networks["generator"], compute
            ),
            finish=functools.partial(self.export, self.generator, "generator"),
        )

    def _batches(self) -> Batches:
        films = LatentFilms(self.latents)
        check_clip(films.facts, self.latent_shape, self.latents)
        tokenize = self.tokenizer(self.teacher).tokenize
        budget = self.model.rollout.window.context
        transform = ShotWithContext(tokenize, budget=budget, policy=self.policy)
        return self.loader(films, self.with_negative(tokenize, transform))

    def _generator(
        self, compute: Compute, encode: EncodeIds, params: Any, inputs: LossInputs
    ) -> LossOutput:
        conditioning, inputs = self._conditioning(encode, inputs)
        loss, _, metrics = self.generator_loss_on_shot(
            compute, encode, params, inputs, conditioning
        )
        return loss, LossAux(metrics=metrics)

    def _critic(
        self, compute: Compute, encode: EncodeIds, params: Any, inputs: LossInputs
    ) -> LossOutput:
        conditioning, inputs = self._conditioning(encode, inputs)
        loss, _ = self.critic_loss_on_shot(compute, params, inputs, conditioning)
        return loss, LossAux(metrics={})

    def _conditioning(
        self, encode: EncodeIds, inputs: LossInputs
    ) -> tuple[Conditioning, LossInputs]:
        """Conditioning on true history; and the inputs with the keys that are still unused."""
        batch = inputs.batch
        # Frozen, as the released UMT5 is; the base alone trains a text encoder.
        text = jax.lax.stop_gradient(
            encode(inputs.networks["text"], ids=batch["ids"], mask=batch["mask"])
        )
        conditioning = shot_conditioning(
            batch["context"], batch["context_shot"], batch["target_shot"], text
        )
        return self.drop_context(conditioning, inputs)


def _split(samples: Key[Array, " batch"]) -> Key[Array, "2 batch"]:
    """Two independent keys of every sample."""
    # Keys lead, samples follow: the result unpacks into two batches of keys.
    return jax.vmap(jax.random.split, out_axes=1)(samples)
