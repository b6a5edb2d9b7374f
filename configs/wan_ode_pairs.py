"""Stage 2a at full size: 5000 trajectories of the teacher, 50 guided steps each.

    shotstream train configs/wan_ode_pairs.py --resume

A trajectory takes 100 calls of the 1.3B network on 27 latent frames.
"""

import pathlib

from shotstream_jax.presets import PRESETS, WAN_NEGATIVE
from shotstream_jax.train.engine.stage import MeshConfig
from shotstream_jax.train.stages.ode_pairs import OdePairs
from shotstream_jax.train.stages.transformer import ClipShape

config = OdePairs(
    output=pathlib.Path("runs/wan/ode_pairs"),
    samples=5000,
    shard=8,
    teacher=pathlib.Path("runs/wan/teacher/export"),
    latents=pathlib.Path("runs/wan/latents"),
    model=PRESETS["wan-1.3b"],
    clip=ClipShape(),
    guidance=6.0,
    negative=WAN_NEGATIVE,
    mesh=MeshConfig(fsdp=8),
)
