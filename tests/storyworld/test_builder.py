"""The dataset on disk is StoryWorld, and TensorFlow has no part in it."""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from shotstream_jax.data.sources import RecordSource
from shotstream_jax.storyworld.builder import StoryWorld, StoryWorldConfig, read_spec
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.source import WorldSource
from shotstream_jax.storyworld.spec import SPLITS, sample_story

SIZES = StoryWorldConfig(
    height=48, width=80, video_frames=9, shots=2, train=3, validation=1, test=2, seed=5
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    builder = StoryWorld(config=SIZES, data_dir=tmp_path_factory.mktemp("tfds"))
    builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


@pytest.mark.parametrize("split", SPLITS)
def test_a_stored_film_is_the_rendered_film(folder, split):
    stored = RecordSource(folder, split)
    drawn = WorldSource(
        stories=getattr(SIZES, split),
        shots=2,
        seed=5,
        split=split,
        picture=Picture(height=48, width=80),
        video_frames=9,
    )
    assert len(stored) == len(drawn)
    by_captions = {drawn[i].captions: drawn[i] for i in range(len(drawn))}
    for index in range(len(stored)):
        film = stored[index]
        twin = by_captions.pop(film.captions)
        assert film.shot_lengths == twin.shot_lengths
        for shot in range(2):
            np.testing.assert_array_equal(film.frames(shot), twin.frames(shot))
            np.testing.assert_array_equal(film.frames(shot, [8, 1]), twin.frames(shot, [8, 1]))


def test_a_record_holds_the_truth(folder):
    records = tfds.builder_from_directory(folder).as_data_source("test")
    specs = {read_spec(record["spec"].decode()) for record in records}
    assert specs == {sample_story(5, 2, "test", index=i) for i in range(2)}


@pytest.mark.parametrize("text", ["{}", "[]", '{"shots": []}', "no json"])
def test_what_is_no_spec_is_refused(text):
    with pytest.raises(ValueError, match="not a StoryWorld spec"):
        read_spec(text)


def test_a_folder_without_films_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no 'train' films"):
        RecordSource(tmp_path)


class Stored:
    """A dataset of the records given, as TFDS hands them out."""

    def __init__(self, *records):
        self.records = records

    def as_data_source(self, split):
        return self.records


def test_an_empty_split_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="validation 0: a dataset has 1 film"):
        dataclasses.replace(SIZES, validation=0)
    monkeypatch.setattr(tfds, "builder_from_directory", lambda folder: Stored())
    with pytest.raises(ValueError, match="has 0 'validation' films"):
        RecordSource(tmp_path, "validation")


def test_a_caption_without_its_shot_is_refused(tmp_path, monkeypatch):
    record = {"pixels": np.zeros((2, 1, 4, 4, 3), np.uint8), "captions": [b"a red star"]}
    monkeypatch.setattr(tfds, "builder_from_directory", lambda folder: Stored(record))
    with pytest.raises(ValueError, match=r"Film 0 of 'train' in .* has 2 shots and 1 captions"):
        RecordSource(tmp_path)[0]


def test_a_frame_that_cannot_be_staged_is_refused():
    with pytest.raises(ValueError, match="64x64"):
        StoryWorldConfig(width=64)


def test_sizes_name_the_configuration():
    assert SIZES.name == "2x9x48x80_3-1-2_seed5"
    assert StoryWorldConfig(name="mine").name == "mine"


def test_neither_writing_nor_reading_imports_tensorflow(tmp_path):
    script = """
import pathlib, sys
from shotstream_jax.data.sources import RecordSource
from shotstream_jax.storyworld.builder import StoryWorld, StoryWorldConfig
sizes = StoryWorldConfig(height=48, width=80, video_frames=5, train=1, validation=1, test=1)
builder = StoryWorld(config=sizes, data_dir=sys.argv[1])
builder.download_and_prepare()
assert RecordSource(pathlib.Path(builder.data_dir))[0].pixels.shape == (3, 5, 48, 80, 3)
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=120)
