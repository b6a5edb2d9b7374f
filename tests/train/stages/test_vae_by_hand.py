"""One step of the autoencoder on pictures and one on clips, computed by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models.vae import decode, encode_moments
from shotstream_jax.train.objectives.vae import VAELoss
from shotstream_jax.train.stages.clips import Phase
from tests.train import miniature
from tests.train.by_hand import LINEAR, Run, assert_moved, step_keys

# On one worker: its films and checkpoints are made once.
pytestmark = pytest.mark.xdist_group("by hand")

SEED, EDGES, DIVERGENCE, MOTION = 5, 0.5, 0.25, 2.0
MEASURED = dataclasses.replace(
    miniature.VAE, latent_mean=(0.5,) * miniature.CHANNELS, latent_std=(2.0,) * miniature.CHANNELS
)
"""Of a run that goes on: statistics that the loss must not divide by."""


@pytest.mark.parametrize("video_frames", [1, 5])
def test_a_step_is_the_error_of_what_comes_back(tmp_path, video_frames):
    experiment = miniature.vae(
        tmp_path,
        seed=SEED,
        vae=MEASURED,
        optimizer=LINEAR,
        phases=(Phase(share=1.0, video_frames=video_frames, batch=2),),
        loss=VAELoss(edges=EDGES, divergence=DIVERGENCE, motion=MOTION),
    )
    run = Run(experiment)
    before = run.params["vae"]
    batch, metrics = run.step(0)
    assert batch["pixels"].shape[:2] == (2, video_frames)
    _, keys = step_keys(SEED, 0, 2)

    def loss(params):
        pixels = jnp.asarray(batch["pixels"], jnp.float32) / 127.5 - 1
        mean, log_variance = encode_moments(params, miniature.VAE, pixels)
        noise = jnp.stack([jax.random.normal(key, mean.shape[1:]) for key in keys])
        wrong = decode(params, miniature.VAE, mean + jnp.exp(log_variance / 2) * noise) - pixels
        usual = pixels.mean(axis=1, keepdims=True)
        moving = 1 + MOTION * jnp.abs(pixels - usual).mean(axis=-1, keepdims=True)
        down, right = wrong[:, :, 1:] - wrong[:, :, :-1], wrong[:, :, :, 1:] - wrong[:, :, :, :-1]
        edges = jnp.abs(down).mean() + jnp.abs(right).mean()
        divergence = (mean**2 + jnp.exp(log_variance) - 1 - log_variance).mean() / 2
        return (moving * jnp.abs(wrong)).mean() + EDGES * edges + DIVERGENCE * divergence

    value, gradient = jax.jit(jax.value_and_grad(loss))(before)
    np.testing.assert_allclose(metrics["vae/loss"], value, rtol=1e-4)
    # An absolute error has two slopes, and rounding decides which a pixel near zero is on.
    assert_moved(before, run.params["vae"], gradient, share=1e-2)
