"""Datasets in shards: whole or not there, made by several, read in any order."""

import numpy as np
import pytest

from shotstream_jax.data.latent_films import LatentFilms
from shotstream_jax.data.shards import FACTS, ShardReader, Shards

SAMPLES, SIZE = 7, 3


def rows(shards, shard):
    numbers = np.asarray(shards.rows(shard))
    return {"number": numbers, "name": np.asarray([f"sample {n}" for n in numbers])}


@pytest.fixture
def shards(tmp_path):
    made = Shards(tmp_path / "data", SAMPLES, SIZE)
    made.describe({"kind": "numbers"})
    for shard in made.missing():
        made.write(shard, rows(made, shard))
    return made


def test_what_was_written_is_read(shards):
    reader = ShardReader(shards.folder, "numbers")
    assert len(reader) == SAMPLES
    assert reader.facts["kind"] == "numbers"
    for index in (6, 0, 3, 2):
        sample = reader[index]
        assert sample["number"] == index
        assert str(sample["name"]) == f"sample {index}"
    with pytest.raises(IndexError, match="Sample 7 of 7"):
        reader[7]


def test_makers_share_the_shards_and_go_on_with_what_is_missing(tmp_path):
    shards = Shards(tmp_path / "data", SAMPLES, SIZE)
    shards.describe({"kind": "numbers"})
    assert [list(shards.missing(process, 2)) for process in (0, 1)] == [[0, 2], [1]]
    shards.write(0, rows(shards, 0))
    assert list(shards.missing()) == [1, 2]
    with pytest.raises(ValueError, match="has 1 of 3 shards"):
        ShardReader(shards.folder, "numbers")


def test_a_shard_that_failed_is_not_there(tmp_path):
    shards = Shards(tmp_path / "data", SAMPLES, SIZE)
    with pytest.raises(ValueError, match="has 3 samples and number 1"):
        shards.write(0, {"number": np.zeros(1)})
    with pytest.raises(ValueError, match="allow_pickle"):
        shards.write(0, {"number": np.asarray([{}, {}, {}], object)})
    assert list(shards.missing()) == [0, 1, 2]
    assert not [path for path in shards.folder.glob(".*") if path.is_dir()]


def test_what_is_no_dataset_is_named(tmp_path, shards):
    with pytest.raises(ValueError, match="nowhere holds no dataset"):
        ShardReader(tmp_path / "nowhere", "numbers")
    with pytest.raises(ValueError, match="holds 'numbers' and 'latent_films' are needed"):
        LatentFilms(shards.folder)
    (shards.folder / FACTS).write_text('{"size": 3}')
    with pytest.raises(ValueError, match=r"no samples in dataset\.json"):
        ShardReader(shards.folder, "numbers")


def test_a_damaged_file_is_named(shards):
    path = shards.folder / "shard_00001" / "number.npy"
    path.write_bytes(path.read_bytes()[:40])
    reader = ShardReader(shards.folder, "numbers")
    assert reader[0]["number"] == 0
    with pytest.raises(ValueError, match=r"shard_00001/number.npy is damaged"):
        reader[4]


@pytest.mark.parametrize(("samples", "size"), [(0, 1), (1, 0)])
def test_a_dataset_of_nothing_is_refused(tmp_path, samples, size):
    with pytest.raises(ValueError, match="both must be 1 or more"):
        Shards(tmp_path, samples, size)
