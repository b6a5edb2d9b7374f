"""The miniature's text-to-video model and its text encoder: single shots from captions.

    shotstream train configs/tiny_base.py --resume

About 35 minutes on 2 CPU cores, to a loss of 0.25. What a caption says of the hero is learnt last.
"""

import pathlib

from shotstream_jax.presets import TINY
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.stages.base import BaseTraining
from shotstream_jax.train.stages.transformer import ClipShape, ComputeConfig

config = BaseTraining(
    output=pathlib.Path("runs/tiny/base"),
    steps=5000,
    batch=16,
    dit=TINY.dit,
    text=TINY.text,
    rollout=TINY.rollout,
    clip=ClipShape(frames=6, rows=12, cols=20),
    compute=ComputeConfig(dtype="float32", remat="none"),
    latents=pathlib.Path("runs/tiny/latents"),
    vae=pathlib.Path("runs/tiny/vae_motion/export"),
    optimizer=OptimizerConfig(
        learning_rate=2e-3,
        muon=15.0,
        schedule="cosine",
        warmup=100,
        final=0.1,
        b2=0.98,
        ema=0.998,
        weight_decay=0.01,
    ),
    log_every=50,
    validate_every=1000,
    save_every=500,
)
