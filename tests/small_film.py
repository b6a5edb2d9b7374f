"""A transformer small enough for gradients, and the four shots of a film as one batch."""

import dataclasses

import jax
import jax.numpy as jnp

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.cache import Window
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.models.dit import init_dit
from shotstream_jax.rollout.conditioning import Conditioning

CONFIG = DiTConfig(
    dim=24, layers=2, heads=2, ffn_dim=32, freq_dim=16, text_dim=8, text_tokens=4, latent_channels=4
)
GRID = (4, 4)
SLOTS = 3
CHUNK = 2
ROTARY_SHOTS = (1, 1, 2, 3)
CONTEXT_SHOTS = ((0, 0, 0), (0, 0, 0), (0, 1, 1), (0, 1, 2))
SLOT_CAPTIONS = tuple((*context, own) for own, context in enumerate(CONTEXT_SHOTS))
"""Of every shot, whose caption each context slot reads, and then the target."""


@dataclasses.dataclass(frozen=True)
class SmallFilm:
    """A network, and what its shots are generated from.

    Attributes:
      config: of the transformer.
      params: random ones.
      conditioning: a batch of four, the first with a context of zeros.
      rollout: three chunks a shot, in three steps each.
    """

    config: DiTConfig
    params: dict
    conditioning: Conditioning
    rollout: RolloutConfig

    def latents(self, seed: int, frames: int) -> jax.Array:
        """Random latents for all four shots."""
        return jax.random.normal(jax.random.key(seed), (len(ROTARY_SHOTS), frames, *GRID, 4))


def make_small_film() -> SmallFilm:
    """Draw the network, context frames and captions."""
    keys = jax.random.split(jax.random.key(0), 3)
    shots = len(ROTARY_SHOTS)
    context = jax.random.normal(keys[0], (shots, SLOTS, *GRID, 4))
    captions = jax.random.normal(keys[1], (shots, CONFIG.text_tokens, CONFIG.text_dim))
    return SmallFilm(
        config=CONFIG,
        params=init_dit(keys[2], CONFIG),
        conditioning=Conditioning(
            context=context.at[0].set(0),
            context_shots=jnp.asarray(CONTEXT_SHOTS),
            shot=jnp.asarray(ROTARY_SHOTS),
            text=captions[jnp.asarray(SLOT_CAPTIONS)],
        ),
        rollout=RolloutConfig(
            window=Window(chunk=CHUNK, context=SLOTS, local=3 * CHUNK), steps=(1000, 700, 300)
        ),
    )
