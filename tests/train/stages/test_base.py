"""The base starts where it can learn: a picture of nothing, and captions that are their words."""

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.models.compute import Compute
from shotstream_jax.models.dit import apply_dense, encode_captions
from shotstream_jax.models.rope import grid_positions, rotation
from shotstream_jax.models.text_encoder import encode_tokens
from shotstream_jax.train.stages.base import init_base
from tests.train.miniature import DIT, TEXT


def test_a_word_is_encoded_alike_wherever_it_stands():
    """Attention that is random at first would make all words of a caption alike."""
    params = init_base(jax.random.key(0), dit=DIT, text=TEXT)["text"]
    ids = jnp.asarray([[5, 6, 7, 1], [7, 9, 5, 1]])
    encoded = encode_tokens(params, TEXT, ids, jnp.ones(ids.shape, bool))
    np.testing.assert_allclose(encoded[0, 0], encoded[1, 2], atol=1e-6)
    np.testing.assert_allclose(encoded[0, 2], encoded[1, 0], atol=1e-6)
    assert np.abs(encoded[0, 0] - encoded[0, 1]).max() > 0.5


def test_the_first_prediction_is_the_mean():
    params = init_base(jax.random.key(0), dit=DIT, text=TEXT)["dit"]
    latents = jax.random.normal(jax.random.key(1), (1, 2, 4, 6, DIT.latent_channels))
    numbers = jnp.arange(2)[None]
    rows, cols = 4 // DIT.patch[0], 6 // DIT.patch[1]
    rope = rotation(
        grid_positions(numbers, jnp.zeros_like(numbers), rows, cols), DIT.head_dim, DIT.shot_phase
    )
    text = jax.random.normal(jax.random.key(2), (1, 1, DIT.text_tokens, DIT.text_dim))
    keys = encode_captions(params, DIT, text, Compute())
    said = apply_dense(params, DIT, latents, jnp.full((1, 1), 500.0), rope, keys, compute=Compute())
    np.testing.assert_array_equal(said.velocity, jnp.zeros_like(latents))
