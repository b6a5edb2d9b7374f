"""Words and labels that a small model does not know, shot by shot."""

import pytest
import tokenizers
from tokenizers import models

from shotstream_jax.data.closed_vocabulary import known_words, unknown_words
from shotstream_jax.data.tokenizer import EOS, PAD, Tokenizer, word_tokenizer
from shotstream_jax.story import Shot, Story

KNOWN = word_tokenizer(["a", "red", "fox", "runs", "shot0", "shot1", ":", ".", ","], 64)


def story(*captions: str, shared: str = "") -> Story:
    shots = tuple(Shot(caption=caption) for caption in captions)
    return Story(title="t", global_caption=shared, shots=shots)


@pytest.fixture
def opened() -> Tokenizer:
    """One that covers text by pieces, as the released one does."""
    vocabulary = {PAD: 0, EOS: 1, "fo": 2, "x": 3}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    return Tokenizer(backend, 8, pad=0, eos=1)


def test_a_story_in_known_words_has_none():
    assert unknown_words(KNOWN, story("A  RED fox, runs.", "a fox.")) == ()


def test_unknown_words_are_told_by_shot_each_once():
    """Kind: a word that the model reads as bytes films something else, and nothing said so."""
    found = unknown_words(KNOWN, story("a fox.", "a blue dog, a Blue foxes.", shared="Meet a fox."))
    assert [(shot.shot, shot.words) for shot in found] == [
        (0, ("meet",)),
        (1, ("meet", "blue", "dog", "foxes")),
    ]
    assert str(found[1]) == "Shot 2: the model does not know meet, blue, dog, foxes."


def test_a_label_beyond_training_is_told():
    """Kind: a third shot for a model that was trained on two."""
    (found,) = unknown_words(KNOWN, story("a.", "a.", "a."))
    assert (found.shot, found.words, found.label) == (2, (), "shot2")
    assert "never saw a shot as late" in str(found)


def test_a_global_caption_that_clings_to_the_label_is_a_word():
    (found,) = unknown_words(KNOWN, story("a.", shared="a fox"))
    assert found.words == ("foxshot0",)


def test_known_words_are_listed_without_labels():
    assert known_words(KNOWN) == ("a", "fox", "red", "runs")


def test_a_vocabulary_that_covers_all_text_knows_all(opened):
    assert known_words(opened) is None
    assert unknown_words(opened, story("anything")) == ()
