"""The miniature's causal student learns to end where its teacher's trajectories end.

    shotstream train configs/tiny_causal_init.py --resume

About 14 minutes on 2 CPU cores, to a loss of 0.030.
"""

import pathlib

from shotstream_jax.presets import TINY
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.stages.causal_init import CausalInitTraining
from shotstream_jax.train.stages.transformer import ClipShape, ComputeConfig

config = CausalInitTraining(
    output=pathlib.Path("runs/tiny/causal_init"),
    steps=1500,
    batch=16,
    dit=TINY.dit,
    text=TINY.text,
    rollout=TINY.rollout,
    clip=ClipShape(frames=6, rows=12, cols=20),
    compute=ComputeConfig(dtype="float32", remat="none"),
    teacher=pathlib.Path("runs/tiny/teacher_more/export"),
    pairs=pathlib.Path("runs/tiny/ode_pairs"),
    text_dropout=0.0,
    optimizer=OptimizerConfig(
        learning_rate=5e-4, muon=10.0, schedule="cosine", warmup=50, final=0.05, b2=0.98, ema=0.998
    ),
    log_every=50,
    validate_every=500,
    save_every=500,
)
