"""Stage 0c, the miniature's text-to-video base: single shots from their captions.

It stands for the released text-to-video model that a full-size teacher starts from, and learns its
text encoder along the way. There are no context frames and no shot numbers yet. Some samples go
without their caption (zeros), which is what guidance will compare with.

Source: Wan (arXiv 2503.20314), section 4.2, at one resolution.
"""

import dataclasses
import functools
import pathlib
import tempfile
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from shotstream_jax.checkpoints.manager import load_network, save_checkpoint
from shotstream_jax.data.latent_films import LatentFilms
from shotstream_jax.data.tokenizer import TOKENIZER_FILE, Tokenizer, word_tokenizer
from shotstream_jax.data.transforms import SingleShot
from shotstream_jax.model_config import CheckpointConfig
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig, TextEncoderConfig
from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.text_encoder import init_text_encoder
from shotstream_jax.rollout.conditioning import Conditioning, apply_dropout, draw_dropout
from shotstream_jax.schedule import FlowSchedule, draw_flow_noise
from shotstream_jax.storyworld.captions import VOCABULARY
from shotstream_jax.train.engine.optimizer import Objective, OptimizerConfig
from shotstream_jax.train.engine.stage import Batches, Scores, Stage, random_weights
from shotstream_jax.train.engine.weights import lineage, measured_vae, training_facts
from shotstream_jax.train.losses import LossAux, LossInputs, LossOutput, ParamsByNetwork
from shotstream_jax.train.objectives.flow_matching import Clip, teacher_loss
from shotstream_jax.train.stages.transformer import EncodeIds, TransformerTraining, check_clip
from shotstream_jax.typing import Array, Key, Latents, Params, Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseTraining(TransformerTraining):
    """Training of a text-to-video transformer and its text encoder, both from scratch.

    Attributes:
      latents: folder of encoded films.
      vae: checkpoint with the autoencoder that encoded them.
      optimizer: how both networks move.
      text_dropout: share of samples that go without their caption.
    """

    latents: pathlib.Path
    vae: pathlib.Path
    optimizer: OptimizerConfig
    text_dropout: float = 0.1

    STAGE: ClassVar = "base"

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
        init = functools.partial(init_base, dit=self.model.dit, text=self.model.text)
        return Stage(
            objectives={"base": objective},
            weights={"base": random_weights(init, self.seed)},
            batches=self._batches,
            batch_shapes={"target": self.shapes.latents(), **self.shapes.captions(1)},
            network_for_step=lambda step: "base",
            finish=self._finish,
        )

    def _batches(self) -> Batches:
        films = LatentFilms(self.latents)
        check_clip(films.facts, self.latent_shape, self.latents)
        return self.loader(films, SingleShot(self._tokenizer().tokenize))

    def _tokenizer(self) -> Tokenizer:
        return word_tokenizer(VOCABULARY, self.model.dit.text_tokens)

    def _loss(
        self, compute: Compute, encode: EncodeIds, params: Any, inputs: LossInputs
    ) -> LossOutput:
        batch = inputs.batch
        # Under the gradient: the text encoder is trained with the transformer here.
        text = encode(params["text"], ids=batch["ids"], mask=batch["mask"])
        clip = single_shot_clip(batch["target"], text)
        # Two keys of every sample, so that another share of dropout leaves its noise as it was.
        dropout_keys, flow_keys = jax.vmap(jax.random.split, out_axes=1)(inputs.keys.per_sample)
        # A shot that stands alone has no context to drop.
        dropout = draw_dropout(dropout_keys, context=0.0, text=self.text_dropout)
        # The shift of the model that comes out: trained at the levels at which it is sampled.
        schedule = FlowSchedule(shift=self.model.rollout.shift)
        loss, errors = teacher_loss(
            params["dit"],
            self.model.dit,
            dataclasses.replace(clip, conditioning=apply_dropout(clip.conditioning, dropout)),
            draw_flow_noise(flow_keys, self.latent_shape, schedule.timesteps),
            schedule=schedule,
            compute=compute,
        )
        return loss, LossAux(metrics={"error": errors.mean()})

    def _finish(self, networks: ParamsByNetwork, folder: pathlib.Path) -> Scores:
        """Export the model, the autoencoder with it."""
        model = dataclasses.replace(self.model, vae=measured_vae(self.vae, self.model.vae))
        facts = training_facts(self.STAGE, self.steps, self.seed)
        config = CheckpointConfig(
            networks={"dit": model.dit, "text": model.text, "vae": model.vae},
            rollout=model.rollout,
            weights="trained",
            training={**facts, "after": lineage(self.vae)},
        )
        # Copied into the export, so that no later stage depends on the autoencoder's folder.
        networks = {**networks["base"], "vae": load_network(self.vae, "vae")}
        with tempfile.TemporaryDirectory() as beside:
            self._tokenizer().save(pathlib.Path(beside))
            save_checkpoint(folder, networks, config, pathlib.Path(beside) / TOKENIZER_FILE)
        return {}


def single_shot_clip(target: Latents, text: Text) -> Clip:
    """Clips of shots that stand alone: no context slots, one caption."""
    batch = target.shape[0]
    conditioning = Conditioning(
        context=target[:, :0],
        context_shots=jnp.zeros((batch, 0), jnp.int32),
        # Text-to-video models know no shots: no jump of the rotary phase.
        shot=jnp.zeros(batch, jnp.int32),
        text=text,
    )
    return Clip(conditioning=conditioning, latents=target)


def init_base(key: Key[Array, ""], *, dit: DiTConfig, text: TextEncoderConfig) -> Params:
    """Random networks whose blocks start nearly as the identity, at every timestep.

    Blocks of the text encoder start as the identity too (zero output projections), so that captions
    start as the embeddings of their tokens.
    """
    dit_key, text_key = jax.random.split(key)
    params = init_dit(dit_key, dit)
    # As in DiT (adaLN-Zero, arXiv 2212.09748, section 3.2): with a projection of zero the gates are
    # the small random numbers of the modulation tables, and with a head of zero the first
    # prediction is zero, the mean of all velocities.
    silent = {
        name: jax.tree.map(jnp.zeros_like, params[name]) for name in ("time_projection", "head")
    }
    return {
        "dit": {**params, **silent},
        "text": jax.tree_util.tree_map_with_path(_silent, init_text_encoder(text_key, text)),
    }


def _silent(path: tuple[Any, ...], leaf: Array) -> Array:
    """Zero for the output projections of the text encoder's blocks."""
    # The last kernels of attention and of feed-forward: all that a block adds passes through them.
    outputs = {"o", "down"} & {entry.key for entry in path}
    return jnp.zeros_like(leaf) if outputs else leaf
