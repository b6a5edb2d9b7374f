"""A whole shot in one program: `lax.scan` over its chunks.

The same arithmetic as `engine.py`, whose owner drives single chunks from Python, byte for byte on
one device. Offline films (`generate --whole-shots`) and plans of them use this; self-forcing runs
the same `scan_chunks` with denoising that stops at an exit step.
"""

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.cache import ShotCache
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.rollout.chunk import (
    ChunkNoise,
    ShotLatents,
    ShotNoise,
    commit_chunk,
    denoise_chunk,
    join_chunks,
    scan_chunks,
)
from shotstream_jax.typing import Index, Latents, Params


def rollout_shot(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    first: Index,
    shot: Index,
    noise: ShotNoise,
    *,
    rollout: RolloutConfig,
    compute: Compute = Compute(),
) -> tuple[ShotLatents, ShotCache]:
    """Denoise and commit chunks `first`, `first` + 1, ... of a shot against a prepared cache.

    Returns:
      Latents of all chunks, and the cache with all of them but the last, whose clean pass only a
      chunk after it would need.
    """

    def denoise(cache: ShotCache, chunk: Index, noise: ChunkNoise) -> tuple[Latents, tuple[()]]:
        how = {"rollout": rollout, "compute": compute}
        return denoise_chunk(params, config, cache, chunk, shot, noise, **how), ()

    def commit(cache: ShotCache, chunk: Index, latents: Latents) -> ShotCache:
        return commit_chunk(params, config, cache, chunk, shot, latents, compute=compute)

    cache, (chunks, _) = scan_chunks(denoise, commit, cache, first, noise)
    return join_chunks(chunks), cache
