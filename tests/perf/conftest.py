"""A model of a few thousand numbers: what is measured here is how things are measured."""

import dataclasses

import jax
import pytest

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.cache import Window
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.text_encoder import TextEncoderConfig
from shotstream_jax.models.vae_config import VAEConfig
from shotstream_jax.perf.plan.programs import FilmSizes
from shotstream_jax.perf.random_networks import random_networks
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.sharding import make_mesh

SIZES = FilmSizes(
    dit=DiTConfig(
        dim=32,
        layers=2,
        heads=2,
        ffn_dim=48,
        freq_dim=16,
        text_dim=8,
        text_tokens=48,
        latent_channels=4,
    ),
    vae=VAEConfig(
        base_channels=4,
        latent_channels=4,
        multipliers=(1, 2),
        residual_blocks=1,
        temporal_downsample=(True,),
        latent_mean=(0.0,) * 4,
        latent_std=(1.0,) * 4,
    ),
    text=TextEncoderConfig(
        vocab=512, dim=8, attention_dim=8, ffn_dim=16, heads=2, layers=1, buckets=8, max_distance=16
    ),
    rollout=RolloutConfig(window=Window(chunk=2, context=3, local=4), steps=(1000, 500)),
    compute=Compute(),
    size=(16, 32),
    chunks=2,
)


@pytest.fixture(scope="session")
def sizes() -> FilmSizes:
    return SIZES


@pytest.fixture
def one_head(sizes) -> FilmSizes:
    """Sizes whose heads are wide enough for the kernel of a TPU."""
    return dataclasses.replace(sizes, dit=dataclasses.replace(sizes.dit, dim=128, heads=1))


@pytest.fixture(scope="session")
def networks() -> Networks:
    return random_networks(SIZES, make_mesh(jax.devices()[:1]))
