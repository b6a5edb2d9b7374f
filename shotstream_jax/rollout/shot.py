"""A whole shot in one program: `lax.scan` over its chunks.

The same arithmetic as `stream.py`, which drives single chunks from Python; use this offline, in
training, and to compile ahead of time.
"""

import jax
import jax.numpy as jnp
from einops import rearrange

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.cache import ShotCache
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.rollout.chunk import commit_chunk, denoise_chunk
from shotstream_jax.typing import Array, Float, Index, Int, Latents, Params


def rollout_shot(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    shot: Index,
    noise: Float[Array, "chunk step batch frame row col chan"],
    *,
    rollout: RolloutConfig,
    compute: Compute = Compute(),
) -> Float[Array, "batch shot_frame row col chan"]:
    """Film all chunks of a shot whose cache is prepared; the cache is dropped with the shot.

    The last chunk is not committed: nobody would read it.
    """
    last = noise.shape[0] - 1

    def film(cache: ShotCache, chunk: Int[Array, ""], noise: Array) -> Latents:
        return denoise_chunk(
            params, config, cache, chunk, shot, noise, rollout=rollout, compute=compute
        )

    def body(cache: ShotCache, turn: tuple[Array, Array]) -> tuple[ShotCache, Latents]:
        chunk, noise = turn
        latents = film(cache, chunk, noise)
        cache = commit_chunk(params, config, cache, chunk, shot, latents, compute=compute)
        return cache, latents

    cache, chunks = jax.lax.scan(body, cache, (jnp.arange(last), noise[:-1]))
    chunks = jnp.concatenate([chunks, film(cache, jnp.asarray(last), noise[-1])[None]])
    return rearrange(chunks, "chunk batch frame ... -> batch (chunk frame) ...")
