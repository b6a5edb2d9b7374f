"""Stage 2a at full size: 5000 trajectories of the teacher, 50 guided steps each.

    shotstream train configs/wan_ode_pairs.py --resume

A trajectory takes 100 calls of the 1.3B network on 27 latent frames.
"""

import pathlib

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.dit_config import WAN_1_3B
from shotstream_jax.models.text_encoder import UMT5_XXL
from shotstream_jax.presets import WAN_NEGATIVE
from shotstream_jax.train.engine.stage import MeshConfig
from shotstream_jax.train.stages.ode_pairs import OdePairs
from shotstream_jax.train.stages.transformer import ClipShape

config = OdePairs(
    output=pathlib.Path("runs/wan/ode_pairs"),
    samples=5000,
    shard=8,
    teacher=pathlib.Path("runs/wan/teacher/export"),
    latents=pathlib.Path("runs/wan/latents"),
    dit=WAN_1_3B,
    text=UMT5_XXL,
    rollout=RolloutConfig(),
    clip=ClipShape(),
    guidance=6.0,
    negative=WAN_NEGATIVE,
    mesh=MeshConfig(fsdp=8),
)
