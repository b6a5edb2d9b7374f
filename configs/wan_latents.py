"""Films at full size, encoded by the released autoencoder.

    shotstream train configs/wan_latents.py --records /data/story_world/... --resume

`records` is a folder that holds films as the `story_world` dataset does: pixels and a caption for
every shot. Every device encodes a shot at a time.
"""

import pathlib

from shotstream_jax.models.vae_config import WAN_VAE
from shotstream_jax.train.stages.latents import LatentDataset

config = LatentDataset(
    output=pathlib.Path("runs/wan/latents"),
    samples=20_000,
    shard=8,
    vae=pathlib.Path("checkpoints/wan-1.3b"),
    vae_config=WAN_VAE,
    shots=5,
    height=480,
    width=832,
    video_frames=81,
)
