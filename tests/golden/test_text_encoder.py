"""The text encoder against the recorded one, on captions of different lengths."""

import jax
import jax.numpy as jnp
import pytest

from shotstream_jax.checkpoints.names_text import text_names
from shotstream_jax.checkpoints.param_trees import build_params
from shotstream_jax.checkpoints.torch_weights import open_weights
from shotstream_jax.models.configs import TextEncoderConfig
from shotstream_jax.models.text_encoder import encode_tokens


@pytest.fixture(scope="module")
def config(golden) -> TextEncoderConfig:
    sizes = golden.sizes("umt5")
    return TextEncoderConfig(
        vocab=sizes["vocab"],
        dim=sizes["dim"],
        attention_dim=sizes["dim_attn"],
        ffn_dim=sizes["dim_ffn"],
        heads=sizes["num_heads"],
        layers=sizes["num_layers"],
        buckets=sizes["num_buckets"],
    )


@pytest.fixture(scope="module")
def recorded(golden):
    return golden.arrays("umt5_golden")


@pytest.fixture(scope="module")
def encode(golden, config, recorded):
    ids, mask = jnp.asarray(recorded["ids"], jnp.int32), jnp.asarray(recorded["mask"], bool)

    def encode(file: str):
        params = build_params(text_names(config), open_weights(golden.path(file)))
        return encode_tokens(jax.tree.map(jnp.asarray, params), config, ids, mask)

    return encode


@pytest.fixture(scope="module")
def encoded(encode):
    return encode("umt5.safetensors")


def test_tokens_of_a_caption_agree(encoded, recorded, agree):
    kept = recorded["mask"].astype(bool)
    agree(encoded[kept], recorded["y"][kept])


def test_what_the_transformer_is_given_agrees(encoded, recorded, agree):
    agree(encoded, recorded["y_zeroed"])


def test_what_lies_behind_a_caption_is_exactly_zero(encoded, recorded):
    assert (encoded[~recorded["mask"].astype(bool)] == 0).all()


def test_the_official_file_differs_by_the_rounding_of_its_weights_only(encode, recorded):
    difference = encode("models_t5_umt5-tiny-enc-bf16.pth") - recorded["y_zeroed"]
    # Bfloat16 weights carry eight bits; some of that error averages out over their sums.
    assert 0 < jnp.linalg.norm(difference) < 2.0**-6 * jnp.linalg.norm(recorded["y_zeroed"])
