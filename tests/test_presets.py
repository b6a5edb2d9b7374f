"""Presets agree with what they are presets of."""

from shotstream_jax.presets import TINY
from shotstream_jax.storyworld.captions import VOCABULARY


def test_the_miniature_has_a_row_for_every_token_of_its_tokenizer():
    """Padding, end of text and 256 bytes come before the words."""
    assert TINY.text.vocab == 2 + 256 + len(VOCABULARY)
