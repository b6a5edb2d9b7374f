"""Trajectories of the miniature's teacher, for the causal student to begin with.

    shotstream train configs/tiny_ode_pairs.py --resume

1024 trajectories of 50 steps, guided by captions and history: about 12 minutes on 2 CPU cores.
"""

import pathlib

from shotstream_jax.presets import TINY
from shotstream_jax.train.stages.ode_pairs import OdePairs
from shotstream_jax.train.stages.transformer import ClipShape, ComputeConfig

config = OdePairs(
    output=pathlib.Path("runs/tiny/ode_pairs"),
    samples=1024,
    shard=32,
    seed=2,
    teacher=pathlib.Path("runs/tiny/teacher_more/export"),
    latents=pathlib.Path("runs/tiny/latents"),
    dit=TINY.dit,
    text=TINY.text,
    rollout=TINY.rollout,
    clip=ClipShape(frames=6, rows=12, cols=20),
    guidance=3.0,
    history_guidance=True,
    compute=ComputeConfig(dtype="float32", remat="none"),
)
