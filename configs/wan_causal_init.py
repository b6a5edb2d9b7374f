"""Stage 2b at full size: the causal student learns the ends of the teacher's trajectories.

    shotstream train configs/wan_causal_init.py --resume

2000 steps of 64 samples, all parameters, at the paper's rate.
"""

import pathlib

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.dit_config import WAN_1_3B
from shotstream_jax.models.text_encoder import UMT5_XXL
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.engine.stage import MeshConfig
from shotstream_jax.train.stages.causal_init import CausalInitTraining
from shotstream_jax.train.stages.transformer import ClipShape

config = CausalInitTraining(
    output=pathlib.Path("runs/wan/causal_init"),
    steps=2000,
    batch=64,
    accumulate=2,
    dit=WAN_1_3B,
    text=UMT5_XXL,
    rollout=RolloutConfig(),
    clip=ClipShape(),
    teacher=pathlib.Path("runs/wan/teacher/export"),
    pairs=pathlib.Path("runs/wan/ode_pairs"),
    optimizer=OptimizerConfig(learning_rate=1e-6, b1=0.0, b2=0.999, weight_decay=0.01, clip=1.0),
    mesh=MeshConfig(fsdp=8),
    save_every=250,
)
