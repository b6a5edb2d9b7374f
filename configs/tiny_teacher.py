"""The miniature's teacher: the next shot, from captions and frames of earlier shots.

    shotstream train configs/tiny_teacher.py --resume

About 50 minutes on 2 CPU cores, to a loss of 0.20. The hero's attributes come after step 1000, its
shape and pattern last; the score of validation films still rises at the end.
"""

import pathlib

from shotstream_jax.presets import TINY
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.stages.teacher import TeacherTraining
from shotstream_jax.train.stages.transformer import ClipShape, ComputeConfig

config = TeacherTraining(
    output=pathlib.Path("runs/tiny/teacher"),
    steps=6000,
    batch=16,
    dit=TINY.dit,
    text=TINY.text,
    rollout=TINY.rollout,
    clip=ClipShape(frames=6, rows=12, cols=20),
    compute=ComputeConfig(dtype="float32", remat="none"),
    start=pathlib.Path("runs/tiny/base/export"),
    latents=pathlib.Path("runs/tiny/latents"),
    trainable="all",
    optimizer=OptimizerConfig(
        learning_rate=1.5e-3,
        muon=15.0,
        schedule="cosine",
        warmup=100,
        final=0.02,
        b2=0.98,
        ema=0.999,
        weight_decay=0.01,
    ),
    guidance=3.0,
    log_every=50,
    validate_every=1000,
    save_every=500,
)
