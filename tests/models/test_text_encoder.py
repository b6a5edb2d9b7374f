"""What the text encoder promises whatever its weights: buckets, padding, order, zeros."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models import text_encoder
from shotstream_jax.models.configs import UMT5_XXL, TextEncoderConfig
from shotstream_jax.models.text_encoder import distance_buckets, init_text_encoder

encode_tokens = jax.jit(text_encoder.encode_tokens, static_argnames=("config", "dtype"))

CONFIG = TextEncoderConfig(
    vocab=50, dim=24, attention_dim=16, ffn_dim=40, heads=4, layers=3, buckets=8, max_distance=20
)


@pytest.fixture(scope="module")
def params():
    return jax.jit(init_text_encoder, static_argnames="config")(jax.random.key(0), CONFIG)


def captions(seed: int, lengths: list[int], tokens: int):
    """Random ids with random rubbish behind each caption's length."""
    ids = np.random.default_rng(seed).integers(0, CONFIG.vocab, (len(lengths), tokens))
    mask = np.arange(tokens) < np.array(lengths)[:, None]
    return jnp.asarray(ids, jnp.int32), jnp.asarray(mask)


def test_buckets_are_those_of_the_drawing():
    starts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
    distance = np.arange(256)
    behind = np.searchsorted(starts, distance, side="right") - 1
    buckets = distance_buckets(512, UMT5_XXL)
    np.testing.assert_array_equal(buckets[256, 256 - distance], behind)
    np.testing.assert_array_equal(buckets[256, 256 + distance[1:]], behind[1:] + 16)


def test_buckets_depend_on_the_distance_only():
    buckets = distance_buckets(512, UMT5_XXL)
    assert (buckets[1:, 1:] == buckets[:-1, :-1]).all()
    assert buckets.max() == UMT5_XXL.buckets - 1


def test_the_shortest_maximum_distance_still_orders_the_buckets():
    config = dataclasses.replace(CONFIG, buckets=8, max_distance=3)
    assert distance_buckets(6, config)[:, 0].tolist() == [0, 1, 2, 3, 3, 3]


def test_buckets_follow_the_logarithmic_formula_away_from_its_edges():
    distance = np.arange(8, 512)
    exact = 8 + np.log(distance / 8) / np.log(16) * 8
    inside = np.abs(exact - np.round(exact)) > 1e-6
    expected = np.minimum(15, np.floor(exact)).astype(int)
    assert (distance_buckets(512, UMT5_XXL)[8:, 0][inside] == expected[inside]).all()


def test_batching_and_padding_do_not_change_an_encoding(params):
    ids, mask = captions(1, [5, 12, 9], tokens=12)
    together = encode_tokens(params, CONFIG, ids, mask)
    for row, length in enumerate([5, 12, 9]):
        alone = encode_tokens(
            params, CONFIG, ids[row : row + 1, :length], mask[row : row + 1, :length]
        )
        np.testing.assert_allclose(together[row, :length], alone[0], rtol=2e-5, atol=2e-5)


def test_rubbish_behind_a_caption_changes_nothing_at_all(params):
    ids, mask = captions(2, [4, 7], tokens=10)
    other = jnp.where(mask, ids, (ids + 17) % CONFIG.vocab)
    assert (
        encode_tokens(params, CONFIG, ids, mask) == encode_tokens(params, CONFIG, other, mask)
    ).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_positions_behind_a_caption_are_exactly_zero(params, dtype):
    ids, mask = captions(3, [1, 6], tokens=6)
    encoded = encode_tokens(params, CONFIG, ids, mask, dtype=dtype)
    assert encoded.dtype == dtype
    assert (encoded[0, 1:] == 0).all()
    assert (jnp.abs(encoded[mask]).max(axis=-1) > 0).all()


def test_bfloat16_stays_near_float32(params):
    ids, mask = captions(4, [11, 8], tokens=11)
    exact = encode_tokens(params, CONFIG, ids, mask)
    rounded = encode_tokens(params, CONFIG, ids, mask, dtype=jnp.bfloat16).astype(jnp.float32)
    assert jnp.linalg.norm(rounded - exact) < 0.02 * jnp.linalg.norm(exact)


def test_every_token_hears_every_other_one(params):
    ids, mask = jnp.arange(6, dtype=jnp.int32)[None], jnp.ones((1, 6), bool)

    def encode(embedding):
        changed = params | {"token_embedding": {"embedding": embedding}}
        return encode_tokens(changed, CONFIG, ids, mask)[0]

    heard = jax.jacobian(encode)(params["token_embedding"]["embedding"])[:, :, :6]
    assert (jnp.abs(heard).max(axis=(1, 3)) > 0).all()


def test_word_order_matters_only_through_the_position_bias(params):
    ids = jnp.array([[3, 9, 4, 1]], jnp.int32)
    swapped, mask = ids[:, jnp.array([1, 0, 2, 3])], jnp.ones((1, 4), bool)
    blocks = params["blocks"]
    deaf = params | {
        "blocks": blocks
        | {
            "attention": blocks["attention"]
            | {"position_bias": jnp.zeros_like(blocks["attention"]["position_bias"])}
        }
    }

    def last(weights, tokens):
        return encode_tokens(weights, CONFIG, tokens, mask)[0, -1]

    assert jnp.abs(last(params, ids) - last(params, swapped)).max() > 1e-4
    np.testing.assert_allclose(last(deaf, ids), last(deaf, swapped), atol=1e-5)


def test_an_id_beyond_the_vocabulary_is_visible(params):
    ids, mask = jnp.array([[CONFIG.vocab]], jnp.int32), jnp.ones((1, 1), bool)
    assert jnp.isnan(encode_tokens(params, CONFIG, ids, mask)).all()


def test_full_size_parameter_count():
    shapes = jax.eval_shape(lambda key: init_text_encoder(key, UMT5_XXL), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 5_680_910_336


def test_layers_start_different(params):
    for leaf in jax.tree.leaves(params["blocks"]):
        assert leaf.shape[0] == CONFIG.layers
    kernel = params["blocks"]["attention"]["q"]["kernel"]
    assert not jnp.allclose(kernel[0], kernel[1])


@pytest.mark.parametrize(
    ("change", "both_values"),
    [
        ({"heads": 5}, ("16", "5")),
        ({"buckets": 6}, ("6", "4")),
        ({"max_distance": 2}, ("2", "buckets / 4 = 2")),
        ({"layers": 0}, ("layers 0", "1")),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, both_values):
    with pytest.raises(ValueError, match=both_values[0]) as refusal:
        dataclasses.replace(CONFIG, **change)
    assert both_values[1] in str(refusal.value)
    assert "\n" not in str(refusal.value)
