"""All stages of the method in sizes that train two steps in seconds, each beginning where the last
one ended. Only what is too large to be quick is small here: every stage is the one that ships.
"""

import dataclasses
import pathlib

from shotstream_jax.model_config import LoRAConfig, ModelConfig, RolloutConfig
from shotstream_jax.models.cache import Window
from shotstream_jax.models.configs import DiTConfig, VAEConfig
from shotstream_jax.presets import TINY
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.objectives.dmd import DMDConfig
from shotstream_jax.train.stages.base import BaseTraining
from shotstream_jax.train.stages.causal_init import CausalInitTraining
from shotstream_jax.train.stages.clips import Phase
from shotstream_jax.train.stages.dmd_inter import InterShotTraining
from shotstream_jax.train.stages.dmd_intra import IntraShotTraining
from shotstream_jax.train.stages.latents import LatentDataset
from shotstream_jax.train.stages.ode_pairs import OdePairs
from shotstream_jax.train.stages.teacher import TeacherTraining
from shotstream_jax.train.stages.transformer import ClipShape, ComputeConfig
from shotstream_jax.train.stages.vae import VAETraining

CHANNELS, SHOTS, VIDEO_FRAMES, HEIGHT, WIDTH = 4, 3, 5, 32, 48
UNIT = (0.0,) * CHANNELS, (1.0,) * CHANNELS

VAE = VAEConfig(
    base_channels=4,
    latent_channels=CHANNELS,
    multipliers=(1, 1, 1),
    residual_blocks=1,
    temporal_downsample=(True, True),
    patch_size=2,
    latent_mean=UNIT[0],
    latent_std=UNIT[1],
)
TEXT = dataclasses.replace(TINY.text, dim=8, attention_dim=8, ffn_dim=8, heads=2, layers=1)
DIT = DiTConfig(
    dim=24,
    layers=1,
    heads=2,
    ffn_dim=16,
    freq_dim=8,
    text_dim=8,
    text_tokens=TINY.dit.text_tokens,
    latent_channels=CHANNELS,
)
ROLLOUT = RolloutConfig(window=Window(chunk=1, context=2, local=2), steps=(1000, 500), shift=3.0)
MODEL = ModelConfig(dit=DIT, vae=VAE, text=TEXT, rollout=ROLLOUT)
ADAMW = OptimizerConfig(learning_rate=1e-3)


def vae(root: pathlib.Path, **changes) -> VAETraining:
    settings = {
        "output": root / "vae",
        "steps": 2,
        "vae": VAE,
        "optimizer": ADAMW,
        "phases": (
            Phase(share=0.5, video_frames=1, batch=2),
            Phase(share=0.5, video_frames=VIDEO_FRAMES, batch=2),
        ),
        "height": HEIGHT,
        "width": WIDTH,
        "video_frames": VIDEO_FRAMES,
        "stories": 4,
        "validation_stories": 1,
        "test_stories": 1,
        "min_oracle_accuracy": 0.0,
    }
    return VAETraining(**{**settings, **changes})


def latents(root: pathlib.Path, **changes) -> LatentDataset:
    settings = {
        "output": root / "latents",
        "samples": 4,
        "shard": 2,
        "model": MODEL,
        "vae": root / "vae" / "export",
        "shots": SHOTS,
        "height": HEIGHT,
        "width": WIDTH,
        "video_frames": VIDEO_FRAMES,
        "budget": ROLLOUT.window.context,
    }
    return LatentDataset(**{**settings, **changes})


def transformer(root: pathlib.Path, stage: str, **changes) -> dict:
    """What all stages that train a transformer are told."""
    settings = {
        "output": root / stage,
        "steps": 2,
        "batch": 2,
        "model": MODEL,
        "clip": ClipShape(frames=2, rows=4, cols=6),
        "compute": ComputeConfig(dtype="float32", remat="none"),
        "latents": root / "latents",
        "optimizer": ADAMW,
        "log_every": 1,
        "save_every": 1,
    }
    return {**settings, **changes}


def base(root: pathlib.Path, **changes) -> BaseTraining:
    return BaseTraining(vae=root / "vae" / "export", **transformer(root, "base", **changes))


def teacher(root: pathlib.Path, **changes) -> TeacherTraining:
    settings = transformer(root, "teacher", **changes)
    return TeacherTraining(**{"start": root / "base" / "export", **settings})


def pairs(root: pathlib.Path, **changes) -> OdePairs:
    shared = transformer(root, "pairs")
    names = ("output", "model", "clip", "compute", "latents")
    settings = {
        **{name: shared[name] for name in names},
        "samples": 4,
        "shard": 2,
        "steps": 4,
        "teacher": root / "teacher" / "export",
    }
    return OdePairs(**{**settings, **changes})


def causal_init(root: pathlib.Path, **changes) -> CausalInitTraining:
    settings = transformer(root, "causal_init", **changes)
    del settings["latents"]
    places = {"teacher": root / "teacher" / "export", "pairs": root / "pairs"}
    return CausalInitTraining(**{**settings, **places})


def _distillation(root: pathlib.Path, stage: str, start: str, changes: dict) -> dict:
    return {
        "generator": root / start / "export",
        "teacher": root / "teacher" / "export",
        "critic_optimizer": ADAMW,
        "dmd": DMDConfig(shift=ROLLOUT.shift),
        "generator_every": 2,
        **transformer(root, stage, **changes),
    }


def intra(root: pathlib.Path, **changes) -> IntraShotTraining:
    return IntraShotTraining(**_distillation(root, "dmd_intra", "causal_init", changes))


def inter(root: pathlib.Path, **changes) -> InterShotTraining:
    settings = _distillation(root, "dmd_inter", "dmd_intra", changes)
    return InterShotTraining(
        **{"shots": SHOTS, "adapter": LoRAConfig(rank=2, alpha=2.0), **settings}
    )


STAGES = (vae, latents, base, teacher, pairs, causal_init, intra, inter)
"""In the order in which each finds what it begins with."""
