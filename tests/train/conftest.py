"""A transformer small enough for gradients, and the four shots of a film as one batch."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.cache import Window
from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.rollout.conditioning import Conditioning

CONFIG = DiTConfig(
    dim=24, layers=2, heads=2, ffn_dim=32, freq_dim=16, text_dim=8, text_tokens=4, latent_channels=4
)
GRID = (4, 4)
CONTEXT = 3
CHUNK = 2
SHOTS = (1, 1, 2, 3)
CAPTIONS = (0, 1, 2, 3)
CONTEXT_SHOTS = ((0, 0, 0), (0, 0, 0), (0, 1, 1), (0, 1, 2))


@dataclasses.dataclass(frozen=True)
class Film:
    """A network, and what its shots are made from.

    `given` is a batch: the first shot, with a context of zeros, and three later ones.
    """

    config: DiTConfig
    params: dict
    given: Conditioning
    rollout: RolloutConfig

    def latents(self, seed: int, frames: int) -> jax.Array:
        return jax.random.normal(jax.random.key(seed), (len(SHOTS), frames, *GRID, 4))


@pytest.fixture(scope="session")
def film_of_four() -> Film:
    keys = jax.random.split(jax.random.key(0), 3)
    context = jax.random.normal(keys[0], (len(SHOTS), CONTEXT, *GRID, 4))
    text = jax.random.normal(keys[1], (len(CAPTIONS), CONFIG.text_tokens, CONFIG.text_dim))
    return Film(
        config=CONFIG,
        params=init_dit(keys[2], CONFIG),
        given=Conditioning(
            context=context.at[0].set(0),
            context_shots=jnp.asarray(CONTEXT_SHOTS),
            context_captions=jnp.asarray(CONTEXT_SHOTS),
            shot=jnp.asarray(SHOTS),
            caption=jnp.asarray(CAPTIONS),
            text=jnp.broadcast_to(text, (len(SHOTS), *text.shape)),
        ),
        rollout=RolloutConfig(
            window=Window(chunk=CHUNK, context=CONTEXT, local=3 * CHUNK), steps=(1000, 700, 300)
        ),
    )


def one_of(tree, sample: int):
    """One sample of a batch, still as a batch."""
    return jax.tree.map(lambda x: x[sample : sample + 1], tree)


@pytest.fixture(scope="session")
def pick_sample():
    return one_of
