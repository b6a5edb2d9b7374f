"""The miniature's student, distilled inside the shot: self-forcing on true history.

shotstream train configs/tiny_dmd_intra.py --resume
"""

import pathlib

from shotstream_jax.config import TINY
from shotstream_jax.train.dmd import DMDConfig
from shotstream_jax.train.dmd_training import IntraShotTraining
from shotstream_jax.train.optimizer import OptimizerConfig
from shotstream_jax.train.transformer import ClipShape, ComputeConfig

config = IntraShotTraining(
    output=pathlib.Path("runs/tiny/dmd_intra"),
    steps=1600,
    batch=8,
    dit=TINY.dit,
    text=TINY.text,
    rollout=TINY.rollout,
    clip=ClipShape(frames=6, rows=12, cols=20),
    compute=ComputeConfig(dtype="float32", remat="none"),
    generator=pathlib.Path("runs/tiny/causal_init/export"),
    teacher=pathlib.Path("runs/tiny/teacher/export"),
    latents=pathlib.Path("runs/tiny/latents"),
    dmd=DMDConfig(guidance=3.0, shift=TINY.rollout.shift),
    ratio=4,
    commits="finished",
    optimizer=OptimizerConfig(learning_rate=1e-4, warmup=10, b1=0.0, b2=0.99, ema=0.98),
    critic_optimizer=OptimizerConfig(learning_rate=2e-4, warmup=20, b1=0.0, b2=0.99),
    log_every=20,
    validate_every=400,
    save_every=200,
)
