"""Stage 2a: the teacher's guided trajectories, kept at the student's few-step levels.

Sample number i is shot and noise number i: the excerpt is drawn from its own generator, the noise
from its own key. A trajectory holds the input of every few-step level, pure noise first, and the
clean end last.

Source: public ShotStream repository, Teacher_Ode_Sample.py, with noise that is seeded.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from shotstream_jax.checkpoints.manager import TOKENIZER
from shotstream_jax.data.latent_films import LatentFilms
from shotstream_jax.data.shards import Arrays
from shotstream_jax.data.tokenizer import load_tokenizer
from shotstream_jax.data.transforms import ShotWithContext
from shotstream_jax.model_config import ModelConfig
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.text_encoder import encode_padded
from shotstream_jax.rollout.conditioning import shot_conditioning
from shotstream_jax.rollout.teacher import SampleConfig, sample_shot
from shotstream_jax.schedule import TRAIN_STEPS
from shotstream_jax.sharding import placed_shapes, replicated, sample_sharding
from shotstream_jax.story import ContextPolicy
from shotstream_jax.train.engine.compiled import load_networks, mesh_of
from shotstream_jax.train.engine.dataset_job import DatasetJob, SampleBuilder, SampleProgram
from shotstream_jax.train.engine.weights import network_weights
from shotstream_jax.train.losses import Batch, ParamsByNetwork
from shotstream_jax.train.stages.batch_shapes import BatchShapes
from shotstream_jax.train.stages.transformer import ClipShape, ComputeConfig, check_clip
from shotstream_jax.typing import Array, Float, Int, Latents

# A new name for each new meaning of the fields, so that a reader refuses older shards by name.
KIND = "ode_pairs_by_slot"
"""Of its shards; before captions went by context slot it was `ode_pairs`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OdePairs(DatasetJob):
    """Sampling of trajectories from the teacher; `samples` are trajectories.

    Attributes:
      teacher: checkpoint with the teacher.
      latents: folder of encoded films.
      model: sizes of the networks, and the few-step levels that are kept.
      clip: size of a shot's latents.
      steps: network calls of a trajectory, each twice with guidance.
      guidance: how far past the negative prompt to go; 1 is no guidance.
      history_guidance: whether to lead away from shots without their history too.
      negative: the negative prompt; `None` is a caption of zeros, as dropped ones are.
      policy: which frames of earlier shots are seen.
      compute: how networks compute.
    """

    teacher: pathlib.Path
    latents: pathlib.Path
    model: ModelConfig
    clip: ClipShape
    steps: int = 50
    guidance: float = 6.0
    history_guidance: bool = False
    negative: str | None = None
    policy: ContextPolicy = "anchor"
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)

    @property
    def sampling(self) -> SampleConfig:
        """How a trajectory is followed, and where it is kept."""
        return SampleConfig(
            steps=self.steps,
            shift=self.model.rollout.shift,
            guidance=self.guidance,
            history_guidance=self.history_guidance,
            keep=kept_steps(self.model.rollout.steps, self.steps),
        )

    @property
    def _shapes(self) -> BatchShapes:
        return BatchShapes(
            batch=self.shard,
            clip=(self.clip.frames, self.clip.rows, self.clip.cols, self.model.dit.latent_channels),
            slots=self.model.rollout.window.context,
            text_tokens=self.model.dit.text_tokens,
        )

    def program(self, mesh: Mesh) -> SampleProgram:
        """The trajectories of a shard, split over the devices.

        Raises:
          ValueError: levels that no step starts at.
        """
        shapes, compute = self._shapes, self.compute.on(mesh, self.model.dit.head_dim)
        stored = {"dtype": compute.dtype, "made_by": ("teacher",)}
        batch = {**shapes.conditioning(), "number": shapes.integers()}
        alone = dataclasses.replace(shapes, batch=1)
        # One prompt for all samples: a batch of its own, which is replicated and not split.
        negative = {} if self.negative is None else alone.captions(1)
        return SampleProgram(
            function=functools.partial(self._sample, compute, self.sampling),
            networks={
                "dit": network_weights(self.teacher, "dit", self.model.dit, **stored),
                "text": network_weights(self.teacher, "text", self.model.text, dtype=compute.dtype),
            },
            inputs={
                "batch": placed_shapes(batch, sample_sharding(self.shard, mesh)),
                "negative": placed_shapes(negative, replicated(mesh)),
            },
        )

    def builder(self) -> SampleBuilder:
        """Load the teacher and open the films.

        Raises:
          ValueError: sizes that do not fit together, or levels that no step starts at.
          FileNotFoundError: no checkpoint.
        """
        films = LatentFilms(self.latents)
        clip = self._shapes.clip
        check_clip(films.facts, clip, self.latents)
        mesh = mesh_of(self.mesh)
        program = self.program(mesh)
        networks = load_networks(program.networks, mesh)
        tokenizer = load_tokenizer(self.teacher / TOKENIZER, length=self.model.dit.text_tokens)
        transform = ShotWithContext(
            tokenizer.tokenize, budget=self.model.rollout.window.context, policy=self.policy
        )
        negative = {} if self.negative is None else _named(*tokenizer.tokenize([self.negative]))
        sample = jax.jit(program.function)

        def build(numbers: Sequence[int]) -> Arrays:
            rows = [self._draw(films, transform, number) for number in numbers]
            batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
            numbered = {**batch, "number": np.asarray(numbers, np.int32)}
            placed = jax.device_put(numbered, sample_sharding(len(rows), mesh))
            trajectory = sample(networks, placed, negative)
            # Latents are of unit variance: float16 has three digits there, and half the size.
            return {**batch, "trajectory": np.asarray(trajectory, np.float16)}

        return SampleBuilder(
            facts={"kind": KIND, "clip": clip, "levels": self.model.rollout.steps}, build=build
        )

    def _draw(self, films: LatentFilms, transform: ShotWithContext, number: int) -> Arrays:
        # By its number alone, so that the excerpt is the same on any process and after a restart.
        sample = transform(films[number % len(films)], np.random.default_rng([self.seed, number]))
        # The trajectory's end takes the place of the filmed shot.
        return {name: np.asarray(array) for name, array in sample.items() if name != "target"}

    def _sample(
        self,
        compute: Compute,
        sampling: SampleConfig,
        networks: ParamsByNetwork,
        batch: Batch,
        negative: Batch,
    ) -> Float[Array, "batch level target_frame row col chan"]:
        encode = functools.partial(
            encode_padded,
            networks["text"],
            self.model.text,
            text_tokens=self.model.dit.text_tokens,
            dtype=compute.dtype,
        )
        text = encode(batch["ids"], batch["mask"])
        if negative:
            unprompted = encode(negative["ids"], negative["mask"])
            unprompted = jnp.broadcast_to(unprompted, (text.shape[0], *unprompted.shape[1:]))
        else:
            unprompted = jnp.zeros_like(text[:, :1])
        conditioning = shot_conditioning(
            batch["context"], batch["context_shot"], batch["target_shot"], text
        )
        sampled = sample_shot(
            networks["dit"],
            self.model.dit,
            conditioning,
            unprompted,
            self._noise(batch["number"]),
            sample=sampling,
            compute=compute,
        )
        # The end stands after the kept inputs: level number `len(steps)` is the clean one.
        states = jnp.concatenate([sampled.kept, sampled.x0[None]])
        return jnp.moveaxis(states, 0, 1)

    def _noise(self, numbers: Int[Array, " batch"]) -> Latents:
        # Keyed by the sample's number, not by its place in a shard: another size of shards, or of
        # devices, samples the same trajectories.
        root = jax.random.key(self.seed)

        def draw(number: Int[Array, ""]) -> Float[Array, "frame row col chan"]:
            return jax.random.normal(jax.random.fold_in(root, number), self._shapes.clip)

        return jax.vmap(draw)(numbers)


def kept_steps(levels: Sequence[int], steps: int) -> tuple[int, ...]:
    """The steps of an even trajectory that start at few-step levels of the unshifted scale.

        levels 1000 740 500 260 of 50 steps    ->    steps 0 13 25 37

    Raises:
      ValueError: a level between two steps.
    """
    # On the unshifted scale a trajectory's steps are even, so that no shift enters here. The
    # nearest step would not do: the student would learn at levels that it is never sampled at.
    exact = [(TRAIN_STEPS - level) * steps / TRAIN_STEPS for level in levels]
    for level, step in zip(levels, exact, strict=True):
        if step != round(step):
            raise ValueError(
                f"No step of {steps} starts at level {level}, which lies at step {step:g}; take "
                "steps that it divides into, such as 50."
            )
    return tuple(round(step) for step in exact)


def _named(ids: np.ndarray, mask: np.ndarray) -> Batch:
    return {"ids": ids[None], "mask": mask[None]}
