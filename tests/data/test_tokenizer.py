"""Cleaning, limits, files, and the small tokenizer of whole words."""

import pathlib

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, processors

from shotstream_jax.data.tokenizer import clean_text, load_tokenizer, word_tokenizer

WORDS = ["a", "red", "fox", "runs"]
PIECES = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0)] + [
    (piece, -1.0 - index / 10) for index, piece in enumerate(["▁a", "▁red", "▁fo", "x", "▁", "s"])
]


@pytest.fixture
def official(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder laid out as Wan2.1 has it, whose file pads, cuts and appends by itself."""
    backend = tokenizers.Tokenizer(models.Unigram(PIECES, unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    backend.enable_truncation(3)
    backend.enable_padding(length=3)
    folder = tmp_path / "google" / "umt5-xxl"
    folder.mkdir(parents=True)
    backend.save(str(folder / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("donâ€™t", "don't"),
        ("cafÃ© au lait", "café au lait"),
        ("fish &amp; chips", "fish & chips"),
        ("<i> fish &amp;lt; chips", "<i> fish < chips"),
        ("<i> &amp;amp;lt;", "<i> &lt;"),
        ("&nbsp;red&nbsp;", "red"),
        ("\u2003a\u00a0 red\t\r\n fox\u3000", "a red fox"),
        ("a \u2028 b", "a b"),
        ("  A Red, FOX!  ", "A Red, FOX!"),
        (" \n\t ", ""),
    ],
)
def test_cleaning(dirty, clean):
    assert clean_text(dirty) == clean


@given(st.text())
def test_cleaned_text_has_single_inner_spaces_only(text):
    clean = clean_text(text)
    assert clean == clean.strip()
    assert all(not char.isspace() or char == " " for char in clean)
    assert "  " not in clean


def test_an_official_file_gives_its_own_ids_and_one_end_token(official):
    tokenizer = load_tokenizer(official, length=8)
    assert (tokenizer.pad, tokenizer.eos) == (0, 1)
    ids, mask = tokenizer.tokenize(["  a red&nbsp;fox ", "a"])
    assert ids.tolist() == [[3, 4, 5, 6, 1, 0, 0, 0], [3, 1, 0, 0, 0, 0, 0, 0]]
    assert mask.sum(axis=1).tolist() == [5, 2]
    assert ids.dtype == np.int32
    backend = tokenizers.Tokenizer.from_file(str(official / "google/umt5-xxl/tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    assert backend.encode("a red fox").ids == ids[0][mask[0]].tolist()


def test_both_the_release_folder_and_the_tokenizer_folder_are_understood(official):
    inner = load_tokenizer(official / "google" / "umt5-xxl", length=8)
    assert (
        inner.tokenize(["a fox"])[0] == load_tokenizer(official, 8).tokenize(["a fox"])[0]
    ).all()


def test_size_is_what_an_embedding_table_needs(official):
    assert load_tokenizer(official).size == len(PIECES)
    assert word_tokenizer(WORDS, 8).size == 2 + 256 + len(WORDS)


def test_a_stored_cut_does_not_shorten_captions_or_their_count(official):
    assert load_tokenizer(official, length=8).count("a red fox") == 5


def test_a_caption_that_just_fits(official):
    ids, mask = load_tokenizer(official, length=5).tokenize(["a red fox"])
    assert ids.tolist() == [[3, 4, 5, 6, 1]]
    assert mask.all()


def test_a_caption_that_is_too_long_is_named_counted_and_limited(official):
    tokenizer = load_tokenizer(official, length=4)
    with pytest.raises(ValueError, match="Caption 1 ") as refusal:
        tokenizer.tokenize(["a", "a red fox"])
    message = str(refusal.value)
    assert all(part in message for part in ("'a red fox'", "5 tokens", "4 fit", "truncate=True"))
    assert "\n" not in message


def test_a_long_caption_is_quoted_in_part_and_on_one_line():
    with pytest.raises(ValueError, match="Caption 0") as refusal:
        word_tokenizer(WORDS, 4).tokenize(["red\n" * 400])
    assert len(str(refusal.value)) < 300
    assert "\n" not in str(refusal.value)


def test_a_cut_that_was_asked_for_keeps_the_end_token(official):
    ids, mask = load_tokenizer(official, length=4).tokenize(["a red fox"], truncate=True)
    assert ids.tolist() == [[3, 4, 5, 1]]
    assert mask.all()


def test_no_tokenizer_names_the_folder_and_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="No tokenizer in") as refusal:
        load_tokenizer(tmp_path / "wan")
    message = str(refusal.value)
    assert all(
        part in message for part in (str(tmp_path / "wan"), "google/umt5-xxl/tokenizer.json")
    )
    assert "\n" not in message


def test_a_lone_sentencepiece_model_is_told_from_nothing(tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"\n")
    with pytest.raises(FileNotFoundError, match=r"holds spiece\.model, which is not read"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"model": 3}', "version https://git-lfs"])
def test_a_corrupt_file_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match="is not a readable tokenizer") as refusal:
        load_tokenizer(tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_tokenizer_of_another_family_is_refused(tmp_path):
    tokenizers.Tokenizer(models.WordLevel({"<pad>": 0, "a": 1}, unk_token="a")).save(
        str(tmp_path / "tokenizer.json")
    )
    with pytest.raises(ValueError, match=r"has no </s> token"):
        load_tokenizer(tmp_path)


def test_a_length_without_room_is_refused():
    with pytest.raises(ValueError, match="Token length 0 must be at least 1"):
        word_tokenizer(WORDS, 0)


def spelled(text: str) -> list[int]:
    """Ids of bytes: after padding and end."""
    return [2 + byte for byte in text.encode()]


A, RED, FOX, RUNS = range(258, 262)


@pytest.mark.parametrize(
    ("caption", "ids"),
    [
        ("a red fox runs", [A, RED, FOX, RUNS]),
        ("A  RED\nfox", [A, RED, FOX]),
        ("a red, fox.", [A, RED, *spelled(","), FOX, *spelled(".")]),
        ("a reddish fox", [A, *spelled("reddish"), FOX]),
        ("cats nap", spelled("cats nap")),
        ("red é 漢 🦊", [RED, *spelled("é 漢 🦊")]),
        ("</s> <0x41>", spelled("</s> <0x41>")),
        ("", []),
    ],
)
def test_known_words_are_one_id_and_anything_else_is_spelled(caption, ids):
    tokens, mask = word_tokenizer(WORDS, 32).tokenize([caption])
    assert tokens[0][mask[0]].tolist() == [*ids, 1]
    assert (tokens[0][~mask[0]] == 0).all()


@given(st.text(max_size=40))
def test_any_text_can_be_written_and_read_back(text):
    tokenizer = word_tokenizer([], 400)
    ids, mask = tokenizer.tokenize([text])
    written = bytes(identity - 2 for identity in ids[0][mask[0]][:-1])
    assert written.decode() == tokenizer.backend.normalizer.normalize_str(clean_text(text))
    assert tokenizer.count(text) == mask.sum()


def test_words_count_once_whatever_their_case():
    assert word_tokenizer(["Red", "red", " RED ", "fox"], 8).size == 2 + 256 + 2


def test_an_empty_word_is_refused():
    with pytest.raises(ValueError, match="Word 1 of the vocabulary is empty"):
        word_tokenizer(["red", " "], 8)


def test_saved_and_loaded_is_the_same_tokenizer(tmp_path):
    made = word_tokenizer(WORDS, 24)
    made.save(tmp_path / "new" / "folder")
    read = load_tokenizer(tmp_path / "new" / "folder", length=24)
    captions = ["A red fox runs.", "reddish é", ""]
    for ours, theirs in zip(made.tokenize(captions), read.tokenize(captions), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (read.pad, read.eos, read.size) == (made.pad, made.eos, made.size)
    read.save(tmp_path / "again")
    first, second = tmp_path / "new" / "folder", tmp_path / "again"
    assert (first / "tokenizer.json").read_bytes() == (second / "tokenizer.json").read_bytes()
