"""Formulas agree with the networks that they are of: parameters exactly, operations nearly."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from shotstream_jax.models.configs import UMT5_XXL, WAN_1_3B, WAN_14B, WAN_VAE, VAEConfig
from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.text_encoder import init_text_encoder
from shotstream_jax.models.vae import (
    decode_first,
    decode_next,
    encode_images,
    init_decoder_cache,
    init_vae,
)
from shotstream_jax.perf.plan.cost import (
    decode_flops,
    decoder_past,
    dit_flops,
    dit_weights,
    encode_flops,
    keys_flops,
    text_weights,
    vae_weights,
)
from shotstream_jax.presets import TINY
from tests.perf.conftest import CONFIG


def parameters(init, config) -> int:
    shapes = jax.eval_shape(lambda key: init(key, config), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("count", "init", "config"),
    [
        *((dit_weights, init_dit, c) for c in (WAN_1_3B, WAN_14B, TINY.dit, CONFIG.dit)),
        *((text_weights, init_text_encoder, c) for c in (UMT5_XXL, TINY.text, CONFIG.text)),
        *((vae_weights, init_vae, c) for c in (WAN_VAE, VAEConfig(patch_size=2), TINY.vae)),
    ],
)
def test_parameters_are_those_that_init_makes(count, init, config):
    assert count(config) == parameters(init, config)


@pytest.mark.parametrize("config", [WAN_VAE, VAEConfig(patch_size=2), TINY.vae])
def test_the_decoder_carries_what_its_cache_holds(config):
    cache = jax.eval_shape(lambda: init_decoder_cache(config, 1, 6, 10))
    assert decoder_past(config, 6 * 10) == sum(leaf.size for leaf in jax.tree.leaves(cache))


@pytest.mark.parametrize("config", [WAN_VAE, VAEConfig(patch_size=2)], ids=["wan", "patches"])
def test_the_autoencoder_agrees_with_the_compiler(config):
    """The compiler leaves out taps outside the picture; a larger one would attend in pieces."""
    side = 80
    params = jax.eval_shape(lambda key: init_vae(key, config), jax.random.key(0))
    latents = jax.ShapeDtypeStruct((1, 1, side, side, config.latent_channels), jnp.float32)
    pixels = side * config.spatial_stride
    image = jax.ShapeDtypeStruct((1, 1, pixels, pixels, 3), jnp.float32)
    past = jax.eval_shape(lambda: init_decoder_cache(config, 1, side, side))
    how = {"conv_impl": "conv3d"}
    found = [
        compiler_flops(lambda p, x: decode_first(p, config, x, **how), params, latents),
        compiler_flops(lambda p, c, x: decode_next(p, config, c, x, **how), params, past, latents),
        compiler_flops(lambda p, x: encode_images(p, config, x, **how), params, image),
    ]
    expected = [
        decode_flops(config, side**2, first=True),
        decode_flops(config, side**2, first=False),
        encode_flops(config, side**2),
    ]
    assert found == pytest.approx(expected, rel=0.02)


def compiler_flops(function, *shapes) -> float:
    """As XLA counts them, once for the body of a loop; nothing is compiled or allocated."""
    return jax.jit(function).lower(*shapes).cost_analysis()["flops"]


def test_a_pass_for_keys_leaves_out_the_end_of_the_last_layer():
    one_less = dataclasses.replace(WAN_1_3B, layers=WAN_1_3B.layers - 1)
    last = 2 * 2 * WAN_1_3B.dim**2 * 100
    assert keys_flops(WAN_1_3B, 100, 700) == dit_flops(one_less, 100, 700) + last
