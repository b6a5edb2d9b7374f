"""The miniature's video autoencoder, trained on StoryWorld: the first of the miniature's stages.

    shotstream train configs/tiny_vae.py --resume

The same command goes on where a stopped run was left. It learns on pictures, which are cheap, then
on clips of 5, 9 and 21 frames: later latents are only as good as what they were trained on.

About 55 minutes on 2 CPU cores. There is no gate on the result, 24.3 dB, in which a spinning star
comes back round: configs/tiny_vae_motion.py goes on from here and mends that.
"""

import pathlib

from shotstream_jax.presets import TINY
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.objectives.vae import VAELoss
from shotstream_jax.train.stages.clips import Phase
from shotstream_jax.train.stages.vae import VAETraining

config = VAETraining(
    output=pathlib.Path("runs/tiny/vae"),
    steps=10_000,
    vae=TINY.vae,
    optimizer=OptimizerConfig(
        learning_rate=3e-3, muon=10.0, schedule="cosine", warmup=50, final=0.02, b2=0.99, ema=0.998
    ),
    phases=(
        Phase(share=0.25, video_frames=1, batch=4),
        Phase(share=0.32, video_frames=5, batch=2),
        Phase(share=0.23, video_frames=9, batch=2),
        Phase(share=0.2, video_frames=21, batch=1),
    ),
    loss=VAELoss(edges=0.0),
    min_oracle_accuracy=0.0,
    height=48,
    width=80,
    log_every=100,
    validate_every=1000,
    save_every=500,
)
