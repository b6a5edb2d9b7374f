"""Costs by arithmetic agree with the published counts of the public networks."""

import pytest

from shotstream_jax.models.dit_config import WAN_1_3B, WAN_14B
from shotstream_jax.models.text_encoder import TextEncoderConfig
from shotstream_jax.models.vae_config import WAN_VAE
from shotstream_jax.perf.plan.cost import (
    decode_flops,
    decoder_past,
    dit_flops,
    dit_weights,
    encode_flops,
    text_flops,
    text_weights,
    vae_weights,
)

POSITIONS = 60 * 104
"""Latent positions of a frame of 480 x 832."""

TOKENS = POSITIONS // 4
TERA = 1e12


def test_weights():
    assert dit_weights(WAN_1_3B) == 1_418_996_800
    assert dit_weights(WAN_14B) == 14_288_491_584
    assert text_weights(TextEncoderConfig()) == 5_680_910_336
    # The published 126,892,531 parameters hold the norms too.
    assert vae_weights(WAN_VAE) == pytest.approx(126_892_531, rel=2e-4)


@pytest.mark.parametrize(
    ("chunk", "tera"),
    [(0, 24.26), (1, 28.30), (2, 32.33), (3, 36.37), (4, 40.41), (5, 44.44), (6, 48.48)],
)
def test_a_call_grows_with_what_it_sees(chunk, tera):
    seen = (6 + 3 * (chunk + 1)) * TOKENS
    assert dit_flops(WAN_1_3B, 3 * TOKENS, seen) / TERA == pytest.approx(tera, rel=1e-3)


def test_context_pass():
    flops = dit_flops(WAN_1_3B, 6 * TOKENS, 6 * TOKENS)
    assert flops / TERA == pytest.approx(40.44, rel=1e-3)


def test_autoencoder():
    first = decode_flops(WAN_VAE, POSITIONS, first=True)
    later = decode_flops(WAN_VAE, POSITIONS, first=False)
    assert first / TERA == pytest.approx(1.70, rel=5e-3)
    assert later / TERA == pytest.approx(13.55, rel=1e-3)
    assert encode_flops(WAN_VAE, POSITIONS) / TERA == pytest.approx(0.99, rel=5e-3)
    assert 2 * decoder_past(WAN_VAE, POSITIONS) / 1e9 == pytest.approx(1.89, rel=5e-3)


def test_text_encoder():
    assert text_flops(TextEncoderConfig(), 512) / TERA == pytest.approx(4.84, rel=2e-3)
