"""Stage 4 as a run: distribution matching from shot to shot, on the generator's own history.

One step is one shot; all samples of a batch are at the same shot of their stories:

    step      0      1      2      3      4      5      6
    shot      0      1      2      3      4    | 0      1     of the next stories
    trains    G      C      C      C      C      C      G

What later shots may have as context is handed from step to step: a shot's finished latents, decoded
to pixels, the frames that any later shot asks for, encoded one by one. Generator steps and shots
are both periodic, and their periods must have no common divisor, or some shots would never train
the generator.

Source: public ShotStream repository, trainer/distillation_frameconcat_streaming.py.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from shotstream_jax.data.latent_films import LatentFilms, reference_frames
from shotstream_jax.data.transforms import Sample, StoryCaptions
from shotstream_jax.model_config import LoRAConfig
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import VAEConfig
from shotstream_jax.models.lora import init_lora, merge
from shotstream_jax.models.vae import decode_frame_by_frame, encode_images
from shotstream_jax.rollout.conditioning import Conditioning, shot_conditioning
from shotstream_jax.sharding import each_sample
from shotstream_jax.story import ContextPolicy, context_frames
from shotstream_jax.train.engine.stage import Batches, Scores, Stage, Weights, random_weights
from shotstream_jax.train.engine.weights import measured_vae, network_weights
from shotstream_jax.train.losses import Batch, LossAux, LossInputs, LossOutput, ParamsByNetwork
from shotstream_jax.train.objectives.self_forcing import History, RolloutResult
from shotstream_jax.train.stages.dmd_intra import DistillationTraining
from shotstream_jax.typing import Array, Float, Index, Key, Params

References = Float[Array, "batch shot reference row col chan"]
"""The possible context frames of every shot of a story."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InterShotTraining(DistillationTraining):
    """Distribution matching of whole stories, shot by shot, on own history.

    Attributes:
      latents: folder of encoded films, of which only the captions are read.
      shots: shots of a story; of longer films the first ones.
      adapter: adapters that learn instead of both networks; `None` trains them whole.
      policy: which frames of earlier shots are seen.
    """

    latents: pathlib.Path
    shots: int = 5
    adapter: LoRAConfig | None = LoRAConfig()
    policy: ContextPolicy = "anchor"
    history: History = "finished"
    context_dropout: float = 0.0

    STAGE: ClassVar = "dmd_inter"

    def stage(self, mesh: Mesh) -> Stage:
        """Bind everything that the loop calls.

        Raises:
          ValueError: sizes that do not fit together, or turns that leave shots out.
        """
        # Step s is of shot s mod shots and trains the generator if s mod generator_every is 0: by
        # the Chinese remainder theorem every shot meets every turn if the two are coprime.
        if math.gcd(self.generator_every, self.shots) != 1:
            raise ValueError(
                f"A generator step every {self.generator_every} and stories of {self.shots} shots "
                "have a common divisor: some shots would never train it; change generator_every or "
                "shots."
            )
        vae = measured_vae(self.generator, self.model.vae)
        compute = self.compute.on(mesh, self.model.dit.head_dim)
        story = _StoryLosses(self, vae, compute)
        whole = {
            "generator": self.generator_start("dmd_intra", "causal_init", "teacher"),
            **self.scores_start(),
        }
        frozen = {**self.frozen_weights(), "vae": network_weights(self.generator, "vae", vae)}
        # With adapters the networks themselves are frozen, and masters, optimizer state and EMA are
        # of the adapters alone: at the released rank, 256, a quarter of the network's size.
        weights = whole
        if self.adapter is not None:
            weights = {name: self._adapters(part) for name, part in whole.items()}
            frozen |= {f"{name}_base": part for name, part in whole.items()}
        return Stage(
            objectives=self.objectives(story.generator, story.critic),
            weights=weights,
            frozen=frozen,
            batches=self._batches,
            batch_shapes={
                "shot": self.shapes.integers(),
                **self.shapes.captions(self.shots),
                **self.negative_shapes(),
            },
            carry=self.shapes.latents(self.shots, frames=len(story.frames)),
            network_for_step=self.network_for_step,
            validation=lambda: self.film_validation(
                "student",
                self.generator,
                jax.jit(functools.partial(self.whole, name="generator")),
                compute,
            ),
            finish=self._finish,
        )

    def whole(self, networks: ParamsByNetwork, name: str) -> Params:
        """A network that learns, its adapters merged into what they adapt."""
        if self.adapter is None:
            return networks[name]
        # Merged and not added layer by layer: the rollout calls the network dozens of times and the
        # merge is paid once; its gradient reaches the factors through the product.
        base = jax.lax.stop_gradient(networks[f"{name}_base"])
        return merge(base, networks[name], self.adapter.scale)

    def _adapters(self, base: Weights) -> Weights:
        rank = self.adapter.rank if self.adapter else 0

        def init(key: Key[Array, ""]) -> Params:
            # Only the shapes are read: nothing of this is ever in memory.
            like = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), base.shapes)
            return init_lora(key, like, rank)

        return random_weights(init, self.seed)

    def _batches(self) -> Batches:
        films = LatentFilms(self.latents)
        if films.facts["shots"] < self.shots:
            raise ValueError(
                f"{self.latents} holds films of {films.facts['shots']} shots and the config says "
                f"shots {self.shots}; encode longer films, or set shots to fewer."
            )
        tokenize = self.tokenizer(self.teacher).tokenize
        captions = StoryCaptions(tokenize, self.shots)
        return ShotByShot(self.loader(films, self.with_negative(tokenize, captions)), self.shots)

    def _finish(self, networks: ParamsByNetwork, folder: pathlib.Path) -> Scores:
        """Merge, and export."""
        # Merged, as the released checkpoint is: filming knows no adapters.
        join = jax.jit(functools.partial(self.whole, name="generator"))
        return self.export(self.generator, "generator", {"generator": join(networks)}, folder)


class ShotByShot:
    """Batches of stories, each handed out once a shot with the shot's number."""

    def __init__(self, stories: Batches, shots: int) -> None:
        self._stories, self._shots = stories, shots
        self._at, self._before, self._batch = 0, stories.get_state(), None

    def __next__(self) -> Sample:
        """The same stories again, at their next shot; or new ones at their first."""
        batch = self._stories_now()
        shot, self._at = self._at, (self._at + 1) % self._shots
        # The loader's state before the stories is what is saved: a resumed run draws the same ones
        # again and goes on at the shot.
        if self._at == 0:
            self._before, self._batch = self._stories.get_state(), None
        return {**batch, "shot": np.full(len(batch["ids"]), shot, np.int32)}

    def get_state(self) -> dict[str, Any]:
        """The place: before which stories, and at which of their shots."""
        return {"stories": self._before, "shot": self._at}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a place."""
        self._stories.set_state(state["stories"])
        self._before, self._batch, self._at = state["stories"], None, state["shot"]

    def _stories_now(self) -> Mapping[str, Any]:
        if self._batch is None:
            self._batch = next(self._stories)
        return self._batch


class _StoryLosses:
    """The losses of one shot of a story, on the shots that the steps before rolled out."""

    def __init__(self, training: InterShotTraining, vae: VAEConfig, compute: Compute) -> None:
        self._training, self._vae, self._compute = training, vae, compute
        video_frames = vae.video_frames(training.clip.frames)
        budget = training.model.rollout.window.context
        # Tables of static shape, indexed by the shot: one program serves all shots of a story.
        self.frames = reference_frames(video_frames, budget)
        refs = [
            context_frames((video_frames,) * shot, budget, training.policy)
            for shot in range(training.shots)
        ]
        # The first shot has no context; its row is filled for the shape, and never used.
        self._shots = jnp.asarray([[ref.shot for ref in row] or [0] * budget for row in refs])
        self._places = jnp.asarray(
            [[self.frames.index(ref.frame) for ref in row] or [0] * budget for row in refs]
        )

    def generator(self, params: Any, inputs: LossInputs) -> LossOutput:
        """The generator's loss, and the history with this shot in it."""
        inputs = self._merged(inputs, generator=params)
        conditioning, left = self._conditioning(inputs)
        whole = inputs.networks["generator"]
        loss, result, metrics = self._training.generator_loss_on_shot(
            self._compute, self._training.encode_ids, whole, left, conditioning
        )
        return loss, LossAux(metrics=metrics, carry=self._add_to_history(inputs, result))

    def critic(self, params: Any, inputs: LossInputs) -> LossOutput:
        """The critic's loss, and the history with this shot in it."""
        inputs = self._merged(inputs, fake_score=params)
        conditioning, left = self._conditioning(inputs)
        # The generator's films, by the generator as it is: only the fake score has a gradient.
        whole = inputs.networks["fake_score"]
        loss, result = self._training.critic_loss_on_shot(self._compute, whole, left, conditioning)
        return loss, LossAux(metrics={}, carry=self._add_to_history(inputs, result))

    def _merged(self, inputs: LossInputs, **learns: Params) -> LossInputs:
        """The inputs with both networks whole, one of them made of the parameters that learn."""
        # `learns` last: the loss is differentiated in its argument, not in the copy in the state.
        networks = {**inputs.networks, **learns}
        both = {name: self._training.whole(networks, name) for name in ("generator", "fake_score")}
        return dataclasses.replace(inputs, networks={**networks, **both})

    def _conditioning(self, inputs: LossInputs) -> tuple[Conditioning, LossInputs]:
        """Conditioning on own history; and the inputs with the keys that are still unused."""
        training, batch, shot = self._training, inputs.batch, _shot_of(inputs.batch)
        # A story's captions are encoded once, and each slot then takes that of its frame's shot.
        captions = training.encode_ids(
            inputs.networks["text"], ids=batch["ids"], mask=batch["mask"]
        )
        shots, places = self._shots[shot], self._places[shot]
        # A new story's first shot: the carry still holds the last shots of the story before.
        conditioning = shot_conditioning(
            jnp.where(shot == 0, 0, inputs.carry[:, shots, places]),
            jnp.broadcast_to(shots, (batch["shot"].shape[0], *shots.shape)),
            batch["shot"],
            jax.lax.stop_gradient(captions)[:, jnp.append(shots, shot)],
        )
        return training.drop_context(conditioning, inputs)

    def _add_to_history(self, inputs: LossInputs, result: RolloutResult) -> References:
        """The history, with the possible context frames of this shot."""
        # Through pixels, since filming encodes context frames from decoded video.
        compute, latents = self._compute, jax.lax.stop_gradient(result.history)
        encode = functools.partial(reference_pictures, self._vae, self.frames, dtype=compute.dtype)
        # Each device its own samples, one after another: pixels of a batch of them do not fit a
        # chip.
        pictures = each_sample(encode, compute.mesh)(inputs.networks["vae"], latents)
        shot = _shot_of(inputs.batch)
        return jax.lax.dynamic_update_index_in_dim(inputs.carry, pictures, shot, axis=1)


def reference_pictures(
    config: VAEConfig,
    frames: Sequence[int],
    params: Params,
    latents: Float[Array, "frame row col chan"],
    *,
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "reference row col chan"]:
    """Some video frames of a finished clip, each encoded by itself, as context frames are.

    All of it a frame at a time: a chip does not hold the pixels of many at full size.
    """
    pixels = decode_frame_by_frame(params, config, latents[None], dtype=dtype)[0]
    # Clipped as 8-bit video is: the encoder never saw pixels outside [-1, 1].
    seen = jnp.clip(pixels[jnp.asarray(frames)], -1, 1)
    return jax.lax.map(lambda image: encode_images(params, config, image[None, None])[0, 0], seen)


def _shot_of(batch: Batch) -> Index:
    """The shot that all samples are at."""
    # `ShotByShot` keeps samples together, so that the context is one gather for all of them.
    return batch["shot"][0]
