"""The miniature's autoencoder goes on with an eye for what moves.

    shotstream train configs/tiny_vae_motion.py --resume

Most of a picture stands still, and the first training gets that right first: a spinning star came
back round. Here an error counts for more where colours change; the gate is on this result.

About 13 minutes on 2 CPU cores: 25.1 dB, and the oracle reads the shape of 0.98 of reconstructions.
"""

import pathlib

from shotstream_jax.presets import TINY
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.objectives.vae import VAELoss
from shotstream_jax.train.stages.clips import Phase
from shotstream_jax.train.stages.vae import VAETraining

config = VAETraining(
    output=pathlib.Path("runs/tiny/vae_motion"),
    steps=2500,
    vae=TINY.vae,
    start=pathlib.Path("runs/tiny/vae/export"),
    optimizer=OptimizerConfig(
        learning_rate=2e-3, muon=10.0, schedule="cosine", warmup=50, final=0.02, b2=0.99, ema=0.998
    ),
    phases=(
        Phase(share=0.6, video_frames=9, batch=2),
        Phase(share=0.4, video_frames=21, batch=1),
    ),
    loss=VAELoss(edges=0.0, motion=8.0),
    height=48,
    width=80,
    log_every=100,
    validate_every=500,
    save_every=500,
)
