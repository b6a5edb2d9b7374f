"""What a training step should do, in plain JAX: nothing here but the networks is the product's.

A `Material` is a folder with films and checkpoints of random weights, all different, so that a
stage that takes the wrong network, shot, frame or caption cannot come out right. Each test writes
out, sample by sample, which shot is seen with which frames and captions, which key draws what, and
the loss; then compares with one step of the stage, bound and compiled as the loop does it.

Shots of 13 video frames are 4 latent frames, 2 chunks; the budget is six context frames.
"""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.checkpoints.manager import TOKENIZER, save_checkpoint
from shotstream_jax.data.latent_films import LATENT_FILMS
from shotstream_jax.data.shards import Shards
from shotstream_jax.data.tokenizer import TOKENIZER_FILE, word_tokenizer
from shotstream_jax.model_config import CheckpointConfig, ModelConfig, RolloutConfig
from shotstream_jax.models.cache import Window
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.dit import apply_dense, encode_captions, init_dit
from shotstream_jax.models.rope import grid_positions, rotation
from shotstream_jax.models.text_encoder import encode_tokens, init_text_encoder
from shotstream_jax.models.vae import init_vae
from shotstream_jax.pytree import pytree
from shotstream_jax.storyworld.captions import VOCABULARY
from shotstream_jax.train.engine.compiled import (
    build_programs,
    first_state,
    load_networks,
    mesh_of,
    place_batch,
)
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.engine.weights import training_facts
from shotstream_jax.train.stages.transformer import ClipShape, ComputeConfig
from tests.train.miniature import DIT, TEXT, VAE

SHOTS, FILMS, VIDEO_FRAMES = 3, 4, 13
FRAMES, CHUNK, BUDGET = 4, 2, 6
CLIP = (FRAMES, 4, 6, DIT.latent_channels)
SHIFT, FEW_STEPS = 3.0, (1000, 500)
ROLLOUT = RolloutConfig(
    window=Window(chunk=CHUNK, context=BUDGET, local=FRAMES), steps=FEW_STEPS, shift=SHIFT
)
MODEL = ModelConfig(dit=DIT, vae=VAE, text=TEXT, rollout=ROLLOUT)
CAPTIONS = tuple(f"{word} star" for word in ("red", "green", "blue", "white", "gray", "pink"))
"""Of all shots of all films, in turn."""

STORED = (0, 2, 5, 6, 7, 10, 12)
"""Video frames of a shot that are stored one by one."""

SEEN = (
    (),
    ((0, 0), (0, 2), (0, 5), (0, 7), (0, 10), (0, 12)),
    ((0, 0), (0, 6), (0, 12), (1, 0), (1, 6), (1, 12)),
)
"""Shot and video frame of the six that each shot sees."""

RATE, EPS = 1e6, 1e4
LINEAR = OptimizerConfig(learning_rate=RATE, b1=0.0, eps=EPS, clip=None)
"""Adam that remembers and divides by nothing: updates are gradients, a hundred times enlarged."""

HOW = Compute()
STAGES = {"base": 1, "teacher": 2, "causal_init": 3, "dmd_intra": 4}
"""The checkpoints there are, each with the seed of its transformer."""


@dataclasses.dataclass(frozen=True)
class Material:
    """Films and checkpoints on disk, and in memory.

    Attributes:
      root: the folder; `latents` and `<stage>/export` are in it.
      clips: latents of every shot, `[film shot frame row col chan]`.
      pictures: latents of the stored frames, `[film shot stored row col chan]`.
      dit: parameters by stage.
      text: parameters of the text encoder, the same in all checkpoints.
      vae: likewise.
    """

    root: pathlib.Path
    clips: np.ndarray
    pictures: np.ndarray
    dit: dict
    text: dict
    vae: dict

    @property
    def settings(self) -> dict:
        """What all stages that train a transformer are told."""
        return {
            "steps": 12,
            "batch": 4,
            "model": MODEL,
            "clip": ClipShape(frames=CLIP[0], rows=CLIP[1], cols=CLIP[2]),
            "compute": ComputeConfig(dtype="float32", remat="none"),
            "optimizer": LINEAR,
        }

    def export(self, stage: str) -> pathlib.Path:
        return self.root / stage / "export"

    def found(self, target: np.ndarray) -> tuple[int, int]:
        """Film and shot of a clip."""
        same = (self.clips == np.asarray(target)).all(axis=(2, 3, 4, 5))
        ((film, shot),) = np.argwhere(same)
        return int(film), int(shot)

    @functools.cached_property
    def encoded(self) -> jax.Array:
        """Every caption, zeros behind its words: `[caption text_token text_dim]`."""
        return jnp.stack([encode(self.text, *ids_of(caption)) for caption in CAPTIONS])

    def caption(self, film: int, shot: int) -> jax.Array:
        return self.encoded[caption_number(film, shot)]


def caption_number(film: int, shot: int) -> int:
    """Shots of one film have different captions, and films share none of theirs in order."""
    return (2 * film + shot) % len(CAPTIONS)


def ids_of(caption: str) -> tuple[jax.Array, jax.Array]:
    """Ids of a caption, and a mask of those that are not padding."""
    return jax.tree.map(
        jnp.asarray, word_tokenizer(VOCABULARY, DIT.text_tokens).tokenize([caption])
    )


@jax.jit
def encode(text: dict, ids: jax.Array, mask: jax.Array) -> jax.Array:
    return encode_tokens(text, TEXT, ids, mask)[0]


def make_material(root: pathlib.Path) -> Material:
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(FILMS, SHOTS, *CLIP)).astype(np.float16)
    pictures = rng.normal(size=(FILMS, SHOTS, len(STORED), *CLIP[1:])).astype(np.float16)
    captions = [[CAPTIONS[caption_number(f, s)] for s in range(SHOTS)] for f in range(FILMS)]
    films = Shards(root / "latents", FILMS, FILMS)
    facts = {"kind": LATENT_FILMS, "clip": CLIP, "shots": SHOTS, "video_frames": VIDEO_FRAMES}
    films.describe({**facts, "reference_frames": STORED})
    films.write(0, {"clips": clips, "references": pictures, "captions": np.asarray(captions)})
    init = jax.jit(init_dit, static_argnums=1)
    material = Material(
        root=root,
        clips=clips.astype(np.float32),
        pictures=pictures.astype(np.float32),
        dit={stage: init(jax.random.key(seed), DIT) for stage, seed in STAGES.items()},
        text=jax.jit(init_text_encoder, static_argnums=1)(jax.random.key(10), TEXT),
        vae=init_vae(jax.random.key(11), VAE),
    )
    word_tokenizer(VOCABULARY, DIT.text_tokens).save(root / TOKENIZER)
    for stage in STAGES:
        document = CheckpointConfig(
            networks={"dit": DIT, "text": TEXT, "vae": VAE},
            rollout=ROLLOUT,
            weights="trained",
            training=training_facts(stage, 2, 0),
        )
        networks = {"dit": material.dit[stage], "text": material.text, "vae": material.vae}
        tokenizer = root / TOKENIZER / TOKENIZER_FILE
        save_checkpoint(material.export(stage), networks, document, tokenizer)
    return material


class Run:
    """A stage, bound and compiled as the loop does it, one step at a time."""

    def __init__(self, experiment):
        mesh = mesh_of(experiment.mesh)
        self.stage = experiment.stage(mesh)
        self.programs = build_programs(self.stage, experiment, mesh)
        self.state = first_state(self.stage, experiment, self.programs)
        self.frozen = load_networks(self.stage.frozen, mesh)
        self.batches = self.stage.batches()

    @property
    def params(self):
        """Parameters that learn, by network, as they are now."""
        return jax.tree.map(np.asarray, self.state.params)

    def replace(self, **params):
        """Go on from other parameters of the networks that learn."""
        placed = jax.tree.map(jnp.array, {**self.state.params, **params})
        self.state = dataclasses.replace(self.state, params=placed)

    def step(self, step: int):
        """Take a step; the batch, and the metrics, come back."""
        network = self.stage.network_for_step(step)
        batch = next(self.batches)
        placed = place_batch(batch, self.stage.objectives[network], self.programs.mesh)
        self.state, metrics = self.programs.steps[network](self.state, self.frozen, placed)
        return batch, {name: float(value) for name, value in metrics.items()}


def step_keys(seed: int, step: int, batch: int) -> tuple[jax.Array, list[jax.Array]]:
    """What one step draws from: a key that all samples share, and one of each sample's own."""
    shared, each = jax.random.split(jax.random.fold_in(jax.random.key(seed), step))
    return shared, [jax.random.fold_in(each, sample) for sample in range(batch)]


@pytree
class Shot:
    """A shot as a network is to see it; what each frame of it is told.

    Attributes:
      context: latents of the context frames.
      shots: what the rotation calls the shot of each of them, and then that of the target.
      texts: the encoded caption that each of them reads, and then the target's.
    """

    context: jax.Array
    shots: jax.Array
    texts: jax.Array

    def without_prompt(self) -> "Shot":
        """The negative prompt, zeros, in place of every caption."""
        return dataclasses.replace(self, texts=jnp.zeros_like(self.texts))


def first_shot(caption: jax.Array) -> Shot:
    """A shot that nothing came before: zeros, its own caption, and the rotation of a second."""
    return Shot(
        context=jnp.zeros((BUDGET, *CLIP[1:])),
        shots=jnp.asarray((0,) * BUDGET + (1,)),
        texts=jnp.stack([caption] * (BUDGET + 1)),
    )


def shot_of(material: Material, film: int, shot: int, pictures: np.ndarray | None = None) -> Shot:
    """A shot of a film with its history, which is that on disk unless other pictures are given."""
    own = material.caption(film, shot)
    if shot == 0:
        return first_shot(own)
    pictures = material.pictures[film] if pictures is None else pictures
    context = [pictures[earlier, STORED.index(frame)] for earlier, frame in SEEN[shot]]
    seen = [earlier for earlier, _ in SEEN[shot]]
    return Shot(
        context=jnp.asarray(np.stack(context)),
        shots=jnp.asarray([*seen, shot]),
        texts=jnp.stack([*(material.caption(film, earlier) for earlier in seen), own]),
    )


def drawn_dropout(key: jax.Array, *, context: float, text: float) -> tuple[bool, bool]:
    """Whether a sample goes without its history, and whether without its captions."""
    history, captions = jax.random.bernoulli(key, jnp.asarray([context, text]))
    return bool(history), bool(captions)


def dropped(shot: Shot, no_context: bool, no_text: bool) -> Shot:
    """The shot without its history, or without captions."""
    shot = first_shot(shot.texts[-1]) if no_context else shot
    return shot.without_prompt() if no_text else shot


def angles(frames, shots):
    """Rotation of the tokens of some frames."""
    numbers, shots = (jnp.asarray(value, jnp.int32)[None] for value in (frames, shots))
    rows, cols = CLIP[1] // DIT.patch[0], CLIP[2] // DIT.patch[1]
    return rotation(grid_positions(numbers, shots, rows, cols), DIT.head_dim, DIT.shot_phase)


def velocity(params, shot: Shot, x_t: jax.Array, timesteps: jax.Array, levels=None) -> jax.Array:
    """What a network says to one noisy shot beside its context; one timestep, or one a frame."""
    context, frames = len(shot.context), len(x_t)
    each = jnp.asarray([*range(context), *([context] * frames)])
    output = apply_dense(
        params,
        DIT,
        jnp.concatenate([shot.context, x_t])[None],
        jnp.broadcast_to(timesteps, (context + frames,))[None],
        angles(jnp.arange(context + frames), shot.shots[each]),
        encode_captions(params, DIT, shot.texts[each][None], HOW),
        caption_index=jnp.arange(context + frames)[None],
        levels=levels,
        compute=HOW,
    )
    return output.velocity[0, context:]


@functools.cache
def sigmas() -> np.ndarray:
    """The thousand noise levels, from 1 downwards."""
    u = 1 - np.arange(1000) / 1000
    return (SHIFT * u / (1 + (SHIFT - 1) * u)).astype(np.float32)


def few_sigmas() -> list[float]:
    """Noise level of every few step."""
    return [float(sigmas()[1000 - level]) for level in FEW_STEPS]


def flow_draw(key: jax.Array, low: float = 0.0, high: float = 1000.0) -> tuple[int, jax.Array]:
    """Number of a noise level, of those whose timesteps lie in a range, and noise."""
    level_key, noise_key = jax.random.split(key)
    inside = np.flatnonzero((1000 * sigmas() >= low) & (1000 * sigmas() <= high))
    level = jax.random.choice(level_key, jnp.asarray(inside))
    return int(level), jax.random.normal(noise_key, CLIP)


def flow_error(params, shot: Shot, clip: jax.Array, sigma: jax.Array, noise: jax.Array):
    """Mean square of what a bidirectional network says, less what leads from clip to noise."""
    said = velocity(params, shot, (1 - sigma) * clip + sigma * noise, 1000 * sigma)
    return jnp.square(said - (noise - clip)).mean()


def bell(level: int) -> float:
    """Weight of a noise level: a bell around timestep 500, of mean 1."""
    curve = np.exp(-2 * ((1000 * sigmas() - 500) / 1000) ** 2)
    return float((curve - curve.min())[level] / (curve - curve.min()).mean())


def mean_of(values: list):
    """The mean of trees, such as losses and gradients of the samples of a batch."""
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *values)


def assert_moved(before, after, gradient, share=2e-3):
    """Parameters moved as an update of `LINEAR` moves them by this gradient.

    `share` is how far off, of the largest move of a leaf.
    """
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    pairs = zip(*map(jax.tree.leaves, (before, after)), leaves, strict=True)
    for old, new, (path, slope) in pairs:
        expected = RATE / EPS * np.asarray(slope)
        # Parameters are about 1: a float32 rounds them to 1e-7.
        close = share * np.abs(expected).max() + 1e-5
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(old - new, expected, rtol=0, atol=close, err_msg=name)


def assert_same(one, other):
    """Two trees are equal to the bit."""
    jax.tree.map(np.testing.assert_array_equal, one, other)
