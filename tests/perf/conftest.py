"""A model of a few thousand numbers: what is measured here is how things are measured."""

import dataclasses
from typing import Any

import jax
import pytest

from shotstream_jax.model_config import ModelConfig, RolloutConfig
from shotstream_jax.models.cache import Window
from shotstream_jax.models.configs import DiTConfig, TextEncoderConfig, VAEConfig
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.perf.random_networks import random_networks
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.sharding import make_mesh

CONFIG = ModelConfig(
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
)
SHAPE = FilmShape(config=CONFIG, size=(16, 32), chunks=2)


def with_dit(shape: FilmShape, **sizes: Any) -> FilmShape:
    """The same film by a transformer of other sizes."""
    dit = dataclasses.replace(shape.config.dit, **sizes)
    return dataclasses.replace(shape, config=dataclasses.replace(shape.config, dit=dit))


@pytest.fixture(scope="session")
def shape() -> FilmShape:
    return SHAPE


@pytest.fixture
def one_head(shape) -> FilmShape:
    """A shape whose heads are wide enough for the kernel of a TPU."""
    return with_dit(shape, dim=128, heads=1)


@pytest.fixture(scope="session")
def networks() -> Networks:
    return random_networks(SHAPE, make_mesh(jax.devices()[:1]))
