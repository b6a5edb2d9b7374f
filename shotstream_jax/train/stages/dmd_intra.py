"""Stage 3 as a run: distribution matching inside a shot, on true history.

Generator and critic take turns, the generator first and then the critic several times. Both film by
self-forcing; context frames are those of the film that the captions come from.

Source: public ShotStream repository, trainer/distillation_frameconcat.py.
"""

import dataclasses
import functools
import pathlib
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from shotstream_jax.data.latent_films import LatentFilms
from shotstream_jax.data.transforms import Sample, ShotWithContext, Tokenize, Transform
from shotstream_jax.models.compute import Compute
from shotstream_jax.rollout.conditioning import Conditioning, apply_dropout, draw_dropout
from shotstream_jax.story import ContextPolicy
from shotstream_jax.train.engine.objective import (
    Batch,
    Chance,
    Inputs,
    Loss,
    Networks,
    Objective,
    Report,
    Scored,
)
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.engine.stage import Batches, Stage, Weights
from shotstream_jax.train.engine.weights import network_weights
from shotstream_jax.train.objectives.dmd import (
    DMDConfig,
    GeneratorDraw,
    NegativeText,
    Scores,
    critic_loss,
    generator_loss,
)
from shotstream_jax.train.objectives.flow_matching import draw_flow
from shotstream_jax.train.objectives.self_forcing import SelfForcing, Take, draw_rollout, film
from shotstream_jax.train.stages.batching import shot_conditioning, split_chance
from shotstream_jax.train.stages.transformer import TransformerTraining, check_clip
from shotstream_jax.typing import Array, Float, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationTraining(TransformerTraining):
    """What both distillation stages have in common.

    Attributes:
      generator: checkpoint with the student to start from.
      teacher: checkpoint with the teacher: the real score, and what the critic starts as.
      optimizer: how the generator moves.
      critic_optimizer: how the critic moves.
      dmd: how the scores are asked.
      generator_every: steps from one of the generator to its next; all others are the critic's.
      commits: what later chunks and shots see: the prediction that is trained, or finished frames.
      cache_gradient: whether clean keys pass a gradient on (see self_forcing.py).
      context_dropout: share of shots that are made, and judged, as first shots.
      negative: prompt that guidance pushes away from; `None` is zeros, as dropped captions are.
    """

    generator: pathlib.Path
    teacher: pathlib.Path
    optimizer: OptimizerConfig
    critic_optimizer: OptimizerConfig
    dmd: DMDConfig
    generator_every: int = 6
    commits: Literal["exit", "finished"] = "exit"
    cache_gradient: Literal["detached", "straight_through"] = "detached"
    context_dropout: float = 0.1
    negative: str | None = None

    @property
    def forcing(self) -> SelfForcing:
        """How the generator is rolled out."""
        return SelfForcing(
            rollout=self.rollout, commits=self.commits, cache_gradient=self.cache_gradient
        )

    def network_for_step(self, step: int) -> str:
        """Which network a step trains."""
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

    def shoot(
        self,
        compute: Compute,
        params: Params,
        inputs: Inputs,
        conditioning: Conditioning,
    ) -> tuple[Float[Array, ""], Take, dict[str, Array]]:
        """The generator's loss on one shot, its take, and what to plot."""
        networks, chance = inputs.networks, inputs.chance
        rollout_keys, score_keys = split_chance(chance.samples, 2)
        draw = GeneratorDraw(
            rollout=draw_rollout(chance.step, rollout_keys, self.latent_shape, self.rollout),
            score=draw_flow(score_keys, self.latent_shape, self.dmd.timestep_table),
        )
        scores = Scores(real=networks["real_score"], fake=networks["fake_score"])
        loss, report = generator_loss(
            params,
            self.dit,
            scores,
            conditioning,
            self._negative(networks, inputs.batch),
            draw,
            forcing=self.forcing,
            dmd=self.dmd,
            compute=compute,
        )
        return loss, report.take, {"push": report.push}

    def judge(
        self,
        compute: Compute,
        params: Params,
        inputs: Inputs,
        conditioning: Conditioning,
    ) -> tuple[Float[Array, ""], Take]:
        """The critic's loss on one shot of the generator's, and the take."""
        chance = inputs.chance
        rollout_keys, score_keys = split_chance(chance.samples, 2)
        draw = draw_rollout(chance.step, rollout_keys, self.latent_shape, self.rollout)
        generator = inputs.networks["generator"]
        take = film(generator, self.dit, conditioning, draw, forcing=self.forcing, compute=compute)
        loss, _ = critic_loss(
            params,
            self.dit,
            conditioning,
            take.latents,
            draw_flow(score_keys, self.latent_shape, self.dmd.timestep_table),
            dmd=self.dmd,
            compute=compute,
        )
        return loss, take

    def dropped(self, conditioning: Conditioning, inputs: Inputs) -> tuple[Conditioning, Inputs]:
        """Without the history of some samples; and the inputs with the chance that is left."""
        dropout_keys, left = split_chance(inputs.chance.samples, 2)
        dropout = draw_dropout(dropout_keys, context=self.context_dropout, text=0.0)
        chance = Chance(step=inputs.chance.step, samples=left)
        return apply_dropout(conditioning, dropout), dataclasses.replace(inputs, chance=chance)

    def scores_start(self) -> dict[str, Weights]:
        """The teacher, as the critic starts as it."""
        return {"fake_score": self._teacher(jnp.float32)}

    def frozen_weights(self) -> dict[str, Weights]:
        """The teacher as the real score, and the text encoder."""
        dtype = self.compute.format
        return {
            "real_score": self._teacher(dtype),
            "text": network_weights(self.teacher, "text", self.text, dtype=dtype),
        }

    def generator_start(self, *made_by: str) -> Weights:
        """The student to start from."""
        return network_weights(self.generator, "dit", self.dit, made_by=made_by)

    def with_negative(self, tokenize: Tokenize, transform: Transform) -> Transform:
        """A transform whose samples carry the negative prompt too, if there is one."""
        if self.negative is None:
            return transform
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

    def _negative(self, networks: Networks, batch: Batch) -> NegativeText:
        if self.negative is None:
            return jnp.zeros((1, 1, self.dit.text_tokens, self.dit.text_dim))
        one = {name: batch[f"negative_{name}"][:1] for name in ("ids", "mask")}
        return jax.lax.stop_gradient(self.read(networks["text"], one))

    def _teacher(self, dtype: DTypeLike) -> Weights:
        return network_weights(self.teacher, "dit", self.dit, dtype=dtype, made_by=("teacher",))


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
        compute = self.compute.on(mesh, self.dit.head_dim)
        losses = (functools.partial(loss, compute) for loss in (self._generator, self._critic))
        return Stage(
            objectives=self.objectives(*losses),
            weights={
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
        budget = self.rollout.window.context
        excerpts = ShotWithContext(tokenize, budget=budget, policy=self.policy)
        return self.loader(films, self.with_negative(tokenize, excerpts))

    def _generator(self, compute: Compute, params: Any, inputs: Inputs) -> Scored:
        conditioning, inputs = self._conditioning(inputs)
        loss, _, metrics = self.shoot(compute, params, inputs, conditioning)
        return loss, Report(metrics=metrics)

    def _critic(self, compute: Compute, params: Any, inputs: Inputs) -> Scored:
        conditioning, inputs = self._conditioning(inputs)
        loss, _ = self.judge(compute, params, inputs, conditioning)
        return loss, Report(metrics={})

    def _conditioning(self, inputs: Inputs) -> tuple[Conditioning, Inputs]:
        """True history; and the inputs with the chance that is left."""
        text = jax.lax.stop_gradient(self.read(inputs.networks["text"], inputs.batch))
        return self.dropped(shot_conditioning(inputs.batch, text), inputs)
