"""Stage 3 at full size: distribution matching inside the shot, on true history.

    shotstream train configs/wan_dmd_intra.py --resume

About 500 generator updates of 32 samples in the paper, one for every five of the critic's.
"""

import pathlib

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.dit_config import WAN_1_3B
from shotstream_jax.models.text_encoder import UMT5_XXL
from shotstream_jax.presets import WAN_NEGATIVE
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.engine.stage import MeshConfig
from shotstream_jax.train.objectives.dmd import DMDConfig
from shotstream_jax.train.stages.dmd_intra import IntraShotTraining
from shotstream_jax.train.stages.transformer import ClipShape

config = IntraShotTraining(
    output=pathlib.Path("runs/wan/dmd_intra"),
    steps=3000,
    batch=32,
    dit=WAN_1_3B,
    text=UMT5_XXL,
    rollout=RolloutConfig(),
    clip=ClipShape(),
    generator=pathlib.Path("runs/wan/causal_init/export"),
    teacher=pathlib.Path("runs/wan/teacher/export"),
    latents=pathlib.Path("runs/wan/latents"),
    dmd=DMDConfig(guidance=4.0, shift=8.0),
    negative=WAN_NEGATIVE,
    optimizer=OptimizerConfig(learning_rate=2e-6, b1=0.0, b2=0.999, weight_decay=0.01, clip=1.0),
    critic_optimizer=OptimizerConfig(
        learning_rate=4e-7, b1=0.0, b2=0.999, weight_decay=0.01, clip=10.0
    ),
    mesh=MeshConfig(fsdp=8),
    save_every=50,
)
