"""Films one story on one device and on meshes of eight; prints how far apart the films are.

Run by test_sharding.py in a process of its own, since the number of devices is fixed at start.
"""

import dataclasses
import json
import sys

import jax
import numpy as np

from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.vae import init_vae
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.stream import stream_story
from shotstream_jax.sharding import make_mesh, replicated, shardings_for, split_devices
from shotstream_jax.story import Defaults, Shot, Story
from tests import small_model

DIT = dataclasses.replace(small_model.DIT, heads=8, dim=64)
CONFIG = dataclasses.replace(small_model.CONFIG, dit=DIT)
STORY = Story(
    title="t",
    shots=(Shot(caption="a"), Shot(caption="b")),
    defaults=Defaults(size=(32, 64), seed=5, chunks=2),
)
MESHES = {
    "heads": {"tensor": 8},
    "heads and weights": {"tensor": 4, "fsdp": 2},
    # Seven devices are left to the transformer, of which its heads divide over four.
    "autoencoder apart": None,
}


def film(mesh, apart=None):
    dit = jax.jit(init_dit, static_argnums=1)(jax.random.key(0), DIT)
    vae = jax.jit(init_vae, static_argnums=1)(jax.random.key(1), small_model.VAE)
    encode_text = small_model.embed
    if mesh is not None:
        dit = jax.device_put(dit, shardings_for(dit, mesh))
        vae = jax.device_put(vae, apart or replicated(mesh))

        def encode_text(captions):
            return jax.device_put(small_model.embed(captions), replicated(mesh))

    networks = Networks(
        config=CONFIG,
        dit=dit,
        vae=vae,
        encode_text=encode_text,
        mesh=mesh,
        vae_apart=apart,
    )
    pieces = list(stream_story(networks, STORY))
    if apart is not None:
        assert all(part.sharding == apart for piece in pieces for part in piece.parts)
    latents = [piece.latents for piece in pieces]
    kernel = dit["blocks"]["ffn"]["up"]["kernel"]
    shard = kernel.sharding.shard_shape(kernel.shape)
    return np.concatenate(latents, axis=1), kernel.size // np.prod(shard)


def main():
    one, _ = film(None)
    for name in sys.argv[1:]:
        sizes = MESHES[name]
        if sizes is None:
            mesh, apart = split_devices(DIT.heads, jax.devices(), vae_apart=True)
        else:
            mesh, apart = make_mesh(**sizes), None
        eight, pieces = film(mesh, apart)
        error = np.abs(one - eight).max() / np.abs(one).max()
        result = {"mesh": name, "error": float(error), "pieces": int(pieces)}
        sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
