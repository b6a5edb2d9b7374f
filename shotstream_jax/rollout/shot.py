"""A whole shot in one program: `lax.scan` over its chunks.

The same arithmetic as `engine.py`, whose owner drives single chunks from Python, byte for byte on
one device. Offline films (`generate --whole-shots`) and plans of them use this.
"""

import jax
import jax.numpy as jnp
from einops import rearrange

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.cache import ShotCache
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.rollout.chunk import commit_chunk, denoise_chunk
from shotstream_jax.typing import Array, Float, Index, Int, Latents, Params


def rollout_shot(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    first: Index,
    shot: Index,
    noise: Float[Array, "chunk step batch frame row col chan"],
    *,
    rollout: RolloutConfig,
    compute: Compute = Compute(),
) -> tuple[Float[Array, "batch shot_frame row col chan"], ShotCache]:
    """Denoise and commit chunks `first`, `first` + 1, ... of a shot against a prepared cache.

    Returns:
      Latents of all chunks, and the cache with all of them but the last, whose clean pass only a
      chunk after it would need.
    """
    last = noise.shape[0] - 1

    def denoise(cache: ShotCache, chunk: Int[Array, ""], noise: Array) -> Latents:
        return denoise_chunk(
            params, config, cache, chunk, shot, noise, rollout=rollout, compute=compute
        )

    def body(cache: ShotCache, turn: tuple[Array, Array]) -> tuple[ShotCache, Latents]:
        chunk, noise = turn
        latents = denoise(cache, chunk, noise)
        cache = commit_chunk(params, config, cache, chunk, shot, latents, compute=compute)
        return cache, latents

    # The last chunk is filmed outside of the loop: its clean pass, 3.7 % of the transformer's
    # operations in a released shot, would write keys that nothing reads.
    numbers = first + jnp.arange(last)
    # A loop, not seven copies: the program holds the network once, whatever the length of the shot.
    cache, chunks = jax.lax.scan(body, cache, (numbers, noise[:-1]))
    chunks = jnp.concatenate([chunks, denoise(cache, jnp.asarray(first + last), noise[-1])[None]])
    return rearrange(chunks, "chunk batch frame ... -> batch (chunk frame) ..."), cache
