"""StoryWorld films for the miniature, encoded by its own autoencoder.

    shotstream train configs/tiny_latents.py --resume

2500 films of 5 shots, 21 video frames each; 12 500 shots in all.
"""

import pathlib

from shotstream_jax.train.latents import LatentMaking

config = LatentMaking(
    output=pathlib.Path("runs/tiny/latents"),
    samples=2500,
    shard=25,
    seed=1,
    vae=pathlib.Path("runs/tiny/vae/export"),
    height=48,
    width=80,
)
