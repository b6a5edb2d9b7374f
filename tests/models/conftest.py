"""A transformer small enough for gradients, with random weights."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from shotstream_jax.models.cache import Window
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.models.dit import encode_captions, init_dit
from shotstream_jax.models.rope import grid_positions, rotation

CONFIG = DiTConfig(
    dim=32, layers=2, heads=2, ffn_dim=48, freq_dim=16, text_dim=8, text_tokens=5, latent_channels=4
)


@dataclasses.dataclass
class Example:
    """A clip of context frames and three chunks, each shot with its own caption."""

    config: DiTConfig
    params: dict
    window: Window
    text: object
    latents: jax.Array
    timesteps: jax.Array
    shots: jax.Array

    def rope(self, frames):
        frames = jnp.asarray(frames)
        positions = grid_positions(frames[None], self.shots[:, frames], 2, 3)
        return rotation(positions, self.config.head_dim, self.config.shot_phase)


@pytest.fixture(scope="session")
def example() -> Example:
    keys = iter(jax.random.split(jax.random.key(0), 8))
    window = Window(chunk=2, context=3, local=6)
    frames = window.context + window.local
    params = init_dit(next(keys), CONFIG)
    text = jax.random.normal(next(keys), (1, 3, CONFIG.text_tokens, CONFIG.text_dim))
    return Example(
        config=CONFIG,
        params=params,
        window=window,
        text=encode_captions(params, CONFIG, text),
        latents=jax.random.normal(next(keys), (1, frames, 4, 6, CONFIG.latent_channels)),
        timesteps=jnp.zeros((1, frames)),
        shots=jnp.asarray([[0, 0, 1] + [2] * window.local]),
    )
