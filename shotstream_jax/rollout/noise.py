"""Randomness keyed by content: the same chunk of the same take draws the same noise, always.

What else was filmed before, in which order, on how many devices, plays no part.
"""

import functools

import jax
import jax.numpy as jnp

from shotstream_jax.typing import Array, Float, Key


def chunk_noise(
    seed: int, shot: int, take: int, chunk: int, *, steps: int, shape: tuple[int, ...]
) -> Float[Array, "step batch frame row col chan"]:
    """Gaussian noise for every denoising step of one chunk; `shape` is that of its latents."""
    key = jax.random.key(seed)
    for number in (shot, take, chunk):
        key = jax.random.fold_in(key, number)
    return _draw(key, steps, shape)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw(
    key: Key[Array, ""], steps: int, shape: tuple[int, ...]
) -> Float[Array, "step batch frame row col chan"]:
    keys = jax.vmap(lambda step: jax.random.fold_in(key, step))(jnp.arange(steps))
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
