"""StoryWorld films for the miniature, encoded by its own autoencoder.

    shotstream train configs/tiny_latents.py --resume

2000 films of 5 shots, 21 video frames each; 10 000 shots in all: about 3 minutes on 2 CPU cores.
"""

import pathlib

from shotstream_jax.train.stages.latents import LatentDataset

config = LatentDataset(
    output=pathlib.Path("runs/tiny/latents"),
    samples=2000,
    shard=25,
    seed=1,
    vae=pathlib.Path("runs/tiny/vae_motion/export"),
    height=48,
    width=80,
)
