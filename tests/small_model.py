"""A model small enough to film in milliseconds, with random weights and made-up captions."""

import hashlib

import jax
import jax.numpy as jnp

from shotstream_jax.model_config import ModelConfig, RolloutConfig
from shotstream_jax.models.cache import Window
from shotstream_jax.models.configs import DiTConfig, TextEncoderConfig, VAEConfig
from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.vae import init_vae
from shotstream_jax.rollout.networks import Networks

DIT = DiTConfig(
    dim=32, layers=2, heads=2, ffn_dim=48, freq_dim=16, text_dim=8, text_tokens=6, latent_channels=4
)
VAE = VAEConfig(
    base_channels=4,
    latent_channels=4,
    multipliers=(1, 2, 2, 2),
    residual_blocks=1,
    latent_mean=(0.0,) * 4,
    latent_std=(1.0,) * 4,
)
# Captions are made up by `embed`: of the text encoder only the width of its output is read.
TEXT = TextEncoderConfig(vocab=1, dim=8, attention_dim=8, ffn_dim=8, heads=1, layers=1)
ROLLOUT = RolloutConfig(window=Window(chunk=2, context=6, local=6), steps=(1000, 500))
CONFIG = ModelConfig(dit=DIT, vae=VAE, text=TEXT, rollout=ROLLOUT)


class Parts(list):
    """A camera's `run` that notes what is done."""

    def __call__(self, part, program, *inputs, **settings):
        self.append(part)
        return program(*inputs, **settings)


def embed(captions):
    """Embeddings that depend on every letter of a caption and on nothing else."""

    def one(caption):
        digest = int.from_bytes(hashlib.sha256(caption.encode()).digest()[:4], "big")
        return jax.random.normal(jax.random.key(digest), (DIT.text_tokens, DIT.text_dim))

    return jnp.stack([one(caption) for caption in captions])


def small_networks() -> Networks:
    return Networks(
        config=CONFIG,
        dit=jax.jit(init_dit, static_argnums=1)(jax.random.key(0), DIT),
        vae=jax.jit(init_vae, static_argnums=1)(jax.random.key(1), VAE),
        encode_text=embed,
    )
