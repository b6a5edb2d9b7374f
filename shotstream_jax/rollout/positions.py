"""Frame numbers of a take that is longer than any that was trained.

A chunk's number decides its positions and its slot in the cache. With T trained chunks, chunk `n`
of a take is filmed as

    running   n
    rebased   min(n, T - 1), after the T - 1 chunks before it were committed again as 0 .. T - 2
    turned    min(n, T - 1), after the keys of all held chunks were turned back by one chunk

Running positions leave the trained range after T chunks: the miniature's picture falls apart at
chunk 14 of a take whose model was trained on 2.
"""

from shotstream_jax.model_config import ModelConfig
from shotstream_jax.models.cache import KeyValue, ShotCache, write_chunk
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.quantise import dequantise
from shotstream_jax.models.rope import rotate_keys_in_time
from shotstream_jax.story import Positions


def chunk_number(config: ModelConfig, positions: Positions, chunk: int) -> int:
    """The number that chunk `chunk` of a take is filmed as, both counted from the cut."""
    if positions == "running":
        return chunk
    return min(chunk, config.rollout.shot_chunks - 1)


def check_positions(config: ModelConfig, positions: Positions, last: int) -> None:
    """Refuse a take whose chunks, the last being number `last`, have no positions.

    Raises:
      ValueError: positions run out, or the cache cannot hold what a policy needs.
    """
    rollout, window = config.rollout, config.rollout.window
    if positions == "running":
        if last >= rollout.max_chunks:
            raise ValueError(
                f"A take would end {last + 1} chunks after its cut, and running positions reach "
                f"{rollout.max_chunks}; cut sooner, or use positions that are re-based or turned."
            )
        return
    if window.sink or rollout.shot_chunks > window.local // window.chunk:
        raise ValueError(
            f"Positions that are {positions} need a local window without a sink that holds the "
            f"{rollout.shot_chunks} trained chunks; this one holds "
            f"{window.local // window.chunk} and a sink of {window.sink} frames. Use running ones."
        )


def turn_back(cache: ShotCache, *, config: DiTConfig) -> ShotCache:
    """A full local cache moved one chunk into the past: the oldest chunk leaves, others move down.

    Keys are stored rotated, and rotations add up: turning a key by minus one chunk of frames gives
    the key that its token would have at the lower number. Values carry no position.
    """
    chunk = cache.window.chunk * cache.frame_tokens
    held = dequantise(cache.local)
    keys = rotate_keys_in_time(held.key[:, :, chunk:], -cache.window.chunk, config.head_dim)
    # From chunk 0 on; the last chunk's slots keep old values until the next chunk is written there.
    return write_chunk(cache, KeyValue(key=keys, value=held.value[:, :, chunk:]), 0)
