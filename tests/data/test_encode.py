"""Captions become text once each, whatever they are asked for with, and the cache stays small."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.data import encode
from shotstream_jax.data.encode import CaptionCache, text_encoder_fn
from shotstream_jax.data.tokenizer import word_tokenizer
from shotstream_jax.models.configs import TextEncoderConfig
from shotstream_jax.models.text_encoder import encode_tokens, init_text_encoder

TOKENIZER = word_tokenizer(["a", "red", "fox", "runs"], length=16)
CONFIG = TextEncoderConfig(
    vocab=TOKENIZER.size, dim=8, attention_dim=8, ffn_dim=16, heads=2, layers=2
)


@pytest.fixture(scope="module")
def params():
    return jax.jit(init_text_encoder, static_argnames="config")(jax.random.key(0), CONFIG)


@pytest.fixture
def counted():
    """An encoder that counts how often it saw each caption."""
    seen = collections.Counter()

    def encode(caption: str):
        seen[caption] += 1
        return jnp.full((2, 3), len(caption), jnp.float32)

    return seen, encode


def test_each_caption_is_encoded_once(counted):
    seen, encode = counted
    cache = CaptionCache(encode)
    first = cache(["one", "three", "one"])
    assert first[:, 0, 0].tolist() == [3, 5, 3]
    assert cache(["three", "seventy"])[:, 0, 0].tolist() == [5, 7]
    assert seen == {"one": 1, "three": 1, "seventy": 1}


def test_the_cache_stays_bounded_and_forgets_what_was_used_longest_ago(counted):
    seen, encode = counted
    cache = CaptionCache(encode, capacity=2)
    cache(["a"])
    cache(["b"])
    cache(["a"])
    cache(["c"])
    assert len(cache) == 2
    cache(["a"])
    assert seen["a"] == 1
    cache(["b"])
    assert seen["b"] == 2


def test_a_story_longer_than_the_cache_is_still_encoded_whole(counted):
    _, encode = counted
    cache = CaptionCache(encode, capacity=1)
    assert cache(["a", "bb", "ccc"])[:, 1, 1].tolist() == [1, 2, 3]
    assert len(cache) == 1


def test_a_failure_is_not_remembered():
    calls = []

    def encode(caption: str):
        calls.append(caption)
        if len(calls) == 1:
            raise ValueError("too long")
        return jnp.zeros((2, 3))

    cache = CaptionCache(encode)
    with pytest.raises(ValueError, match="too long"):
        cache(["a"])
    assert cache(["a"]).shape == (1, 2, 3)


def test_nothing_to_hold_and_nothing_to_encode_are_refused(counted):
    with pytest.raises(ValueError, match="cache of 0 captions"):
        CaptionCache(counted[1], capacity=0)
    with pytest.raises(ValueError, match="0 captions to encode"):
        CaptionCache(counted[1])([])


def test_text_is_what_the_encoder_says_then_zeros(params):
    encode = text_encoder_fn(params, CONFIG, TOKENIZER, text_tokens=20)
    captions = ["a red fox", "a fox runs."]
    text = encode(captions)
    assert text.shape == (2, 20, CONFIG.dim)
    ids, mask = TOKENIZER.tokenize(captions)
    expected = encode_tokens(params, CONFIG, jnp.asarray(ids), jnp.asarray(mask))
    np.testing.assert_allclose(text[:, :16], expected, atol=1e-5)
    assert (text[:, 16:] == 0).all()
    assert (text[0, 4:] == 0).all()


def test_a_caption_is_encoded_alike_alone_and_in_company(params):
    together = text_encoder_fn(params, CONFIG, TOKENIZER, text_tokens=16)(["a fox", "red"])
    alone = text_encoder_fn(params, CONFIG, TOKENIZER, text_tokens=16)(["red"])
    assert (together[1] == alone[0]).all()


def test_one_program_serves_all_captions(params, monkeypatch):
    shapes, real = [], encode.encode_caption_tokens

    def noted(params, config, ids, mask, *, dtype):
        shapes.append((ids.shape, mask.shape, config, dtype))
        return real(params, config, ids, mask, dtype=dtype)

    monkeypatch.setattr(encode, "encode_caption_tokens", noted)
    encoder = text_encoder_fn(params, CONFIG, TOKENIZER, text_tokens=16)
    encoder(["a"])
    encoder(["a red fox runs", "red"])
    # What a program is compiled for; captions of other lengths are padded to it.
    assert len(shapes) == 3
    assert len(set(shapes)) == 1


def test_the_number_format_is_asked_for(params):
    encode = text_encoder_fn(params, CONFIG, TOKENIZER, text_tokens=16, dtype=jnp.bfloat16)
    assert encode(["a"]).dtype == jnp.bfloat16


def test_a_tokenizer_that_does_not_fit_is_refused(params):
    with pytest.raises(ValueError, match="tokenizer has 263 ids and the text encoder 262"):
        text_encoder_fn(params, CONFIG, word_tokenizer([*"vwxyz"], 16), text_tokens=16)


def test_a_tokenizer_that_writes_too_much_is_refused(params):
    with pytest.raises(ValueError, match="writes 16 tokens and 12 fit"):
        text_encoder_fn(params, CONFIG, TOKENIZER, text_tokens=12)


def test_a_caption_that_is_too_long_is_refused_not_cut(params):
    encode = text_encoder_fn(params, CONFIG, TOKENIZER, text_tokens=16)
    with pytest.raises(ValueError, match="17 tokens"):
        encode(["red " * 16])
