"""What the public trainer does and no run of ours: only its recordings are replayed with it.

Source: public ShotStream repository, pipeline/self_forcing_frameconcat_training.py and
model/dmd_frameconcat.py.
"""

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.cache import KeyValue, ShotCache, chunk_slot, write_chunk
from shotstream_jax.pytree import pytree
from shotstream_jax.rollout.chunk import ChunkLatents
from shotstream_jax.schedule import FlowSchedule, add_noise
from shotstream_jax.typing import Array, Float, Index, Latents


@pytree
class ReferenceCompat:
    """Self-forcing as in the public trainer.

    Clean keys of a chunk pass the gradient of those of its exit step (`graft_keys`), and the clean
    pass is not quite clean where there is noise for it.

    Attributes:
      clean_pass_noise: mixed at the lowest training level into what is committed of each chunk.
    """

    clean_pass_noise: ChunkLatents | None = None

    def clean_pass_input(self, chunk: Index, latents: Latents, rollout: RolloutConfig) -> Latents:
        """What the clean pass sees of a chunk's latents."""
        if self.clean_pass_noise is None:
            return latents
        # The public trainer noises to timestep 0, whose nearest training level is 0.0079, not 0.
        lowest = jnp.asarray(FlowSchedule(shift=rollout.shift).sigmas[-1])
        return add_noise(latents, self.clean_pass_noise[chunk], lowest)

    def graft_keys(self, cache: ShotCache, kv: KeyValue, chunk: Index) -> ShotCache:
        """Leave a chunk's clean keys as they are, and give them the gradient of a noisy pass's.

            clean + (noisy - stop_gradient(noisy))

        So it comes out where a cache is overwritten in place, out of the gradient's sight.
        """
        # In PyTorch the exit step writes its keys into the cache under autograd, and the clean pass
        # overwrites them without: the values are then clean and the gradient is the noisy pass's.
        start = chunk_slot(cache.window, cache.frame_tokens, chunk).start

        def graft(written: Array, noisy: Array) -> Array:
            clean = jax.lax.dynamic_slice_in_dim(written, start, noisy.shape[2], axis=2)
            return clean + (noisy - jax.lax.stop_gradient(noisy)).astype(clean.dtype)

        return write_chunk(cache, jax.tree.map(graft, cache.kv, kv), chunk)


def clamped_timesteps(
    schedule: FlowSchedule, timesteps: tuple[float, float]
) -> Float[np.ndarray, " level"]:
    """All training timesteps, those outside the range moved to its ends.

    At shift 8 a seventh of them are then the greatest; a run leaves them out instead.
    """
    low, high = timesteps
    return np.clip(schedule.timesteps, np.float32(low), np.float32(high))
