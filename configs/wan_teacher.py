"""Stage 1 at full size: the 1.3B text-to-video model learns the next shot.

    shotstream convert Wan2.1-T2V-1.3B -o checkpoints/wan-1.3b
    shotstream train configs/wan_teacher.py --resume

Only self-attention learns, as in the paper: 10 000 steps of 64 samples at 480 x 832, 81 frames.
Films are encoded beforehand (wan_latents.py). Every frame reads the caption of its own shot.
"""

import pathlib

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.dit_config import WAN_1_3B
from shotstream_jax.models.text_encoder import UMT5_XXL
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.engine.stage import MeshConfig
from shotstream_jax.train.stages.teacher import TeacherTraining
from shotstream_jax.train.stages.transformer import ClipShape

config = TeacherTraining(
    output=pathlib.Path("runs/wan/teacher"),
    steps=10_000,
    batch=64,
    dit=WAN_1_3B,
    text=UMT5_XXL,
    rollout=RolloutConfig(),
    clip=ClipShape(),
    start=pathlib.Path("checkpoints/wan-1.3b"),
    latents=pathlib.Path("runs/wan/latents"),
    optimizer=OptimizerConfig(learning_rate=1e-5, b1=0.0, b2=0.999, weight_decay=0.01, clip=10.0),
    mesh=MeshConfig(fsdp=8),
    save_every=200,
)
