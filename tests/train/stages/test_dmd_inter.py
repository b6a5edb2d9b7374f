"""What a shot leaves for later shots of its story."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.models.vae import decode, encode_images, init_vae
from shotstream_jax.sharding import each_sample
from shotstream_jax.train.stages.dmd_inter import reference_pictures
from tests.train import miniature

FRAMES = (0, 2, 3)


def test_later_shots_are_shown_the_decoded_frames_each_encoded_by_itself():
    config = miniature.VAE
    params = init_vae(jax.random.key(0), config)
    latents = jax.random.normal(jax.random.key(1), (2, 3, 2, 3, config.latent_channels))

    @jax.jit
    def all_at_once(params, latents):
        pixels = decode(params, config, latents)[:, jnp.asarray(FRAMES)]
        return encode_images(params, config, jnp.clip(pixels, -1, 1))

    one = functools.partial(reference_pictures, config, FRAMES)
    found = jax.jit(each_sample(one, None))(params, latents)
    largest = float(jnp.abs(found).max())
    np.testing.assert_allclose(found, all_at_once(params, latents), rtol=0, atol=1e-4 * largest)


def test_each_sample_is_seen_by_itself_and_keeps_its_place():
    seen = []

    def apply(scale, sample):
        seen.append(sample.shape)
        return scale * sample.sum()

    batch = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(each_sample(apply, None)(jnp.asarray(2.0), batch), [2, 10, 18])
    assert set(seen) == {(2,)}
