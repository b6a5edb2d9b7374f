"""The miniature's student, distilled from shot to shot on its own history: what ships.

    shotstream train configs/tiny_dmd_inter.py --resume

About 9 minutes on 2 CPU cores; the adapters are merged into what is exported.
"""

import pathlib

from shotstream_jax.presets import TINY
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.objectives.dmd import DMDConfig
from shotstream_jax.train.stages.dmd_inter import InterShotTraining, LoRAConfig
from shotstream_jax.train.stages.transformer import ClipShape, ComputeConfig

config = InterShotTraining(
    output=pathlib.Path("runs/tiny/dmd_inter"),
    steps=600,
    batch=8,
    dit=TINY.dit,
    text=TINY.text,
    rollout=TINY.rollout,
    clip=ClipShape(frames=6, rows=12, cols=20),
    compute=ComputeConfig(dtype="float32", remat="none"),
    generator=pathlib.Path("runs/tiny/dmd_intra/export"),
    teacher=pathlib.Path("runs/tiny/teacher_more/export"),
    latents=pathlib.Path("runs/tiny/latents"),
    dmd=DMDConfig(guidance=2.0, history_guidance=True, shift=TINY.rollout.shift),
    generator_every=6,
    adapter=LoRAConfig(rank=32, alpha=32.0),
    optimizer=OptimizerConfig(learning_rate=1e-4, warmup=10, b1=0.0, b2=0.99, ema=0.98),
    critic_optimizer=OptimizerConfig(learning_rate=1e-3, warmup=20, b1=0.0, b2=0.99),
    log_every=30,
    validate_every=300,
    save_every=300,
)
