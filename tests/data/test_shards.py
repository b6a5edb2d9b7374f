"""Datasets in shards: complete or absent, written by several, checked whenever they are read."""

import io
import json

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from shotstream_jax.data.latent_films import LatentFilms
from shotstream_jax.data.shards import DATASET_FILE, ShardReader, Shards

SAMPLES, SIZE = 7, 3


def rows(shards, shard):
    numbers = np.asarray(shards.rows(shard))
    return {
        "number": numbers,
        "name": np.asarray([f"sample {n}" for n in numbers]),
        "pair": np.stack([numbers, -numbers], axis=1).astype(np.float16),
    }


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
        assert sample["pair"].tolist() == [index, -index]
        assert sample["pair"].dtype == np.float16
    with pytest.raises(IndexError, match="Sample 7 of 7"):
        reader[7]


def test_writers_share_the_shards_and_go_on_with_what_is_missing(tmp_path):
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
    (shards.folder / DATASET_FILE).write_text('{"size": 3}')
    with pytest.raises(ValueError, match=r"no samples in dataset\.json"):
        ShardReader(shards.folder, "numbers")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"samples": 7', '"samples": 6'),
        lambda text: text.replace("float16", "float32"),
        lambda text: text.replace('"fields"', '"fieldt"'),
        lambda text: text.replace('"shape"', '"shap"'),
        lambda text: "[]",
        lambda text: "null",
        lambda text: "[" * 100_000,
        lambda text: '{"samples": 7, "size": 3, "kind": "numbers", "fields": {"x": 3}}',
    ],
)
def test_facts_that_were_changed_are_noticed(shards, change):
    """Kind: a flipped bit in a dataset's facts was believed, or ended in a traceback."""
    path = shards.folder / DATASET_FILE
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before
    with pytest.raises(ValueError, match="holds no dataset that can be read"):
        ShardReader(shards.folder, "numbers")


def test_facts_without_a_checksum_are_those_of_an_earlier_release(shards):
    path = shards.folder / DATASET_FILE
    facts = json.loads(path.read_text())
    del facts["sha256"]
    path.write_text(json.dumps(facts))
    assert len(ShardReader(shards.folder, "numbers")) == 7


def overwrite_record(shards, shard, records):
    """Write a shard's file anew with other records, valid ones as far as the container goes."""
    writer = ArrayRecordWriter(str(shards.path(shard)), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def npz(**fields) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **fields)
    return buffer.getvalue()


def test_samples_describe_themselves(shards):
    """Whoever has NumPy and ArrayRecord reads them without this package."""
    record = ArrayRecordReader(str(shards.path(1))).read([1])[0]
    with np.load(io.BytesIO(record), allow_pickle=False) as fields:
        assert sorted(fields) == ["name", "number", "pair"]
        assert int(fields["number"]) == 4
        assert fields["pair"].dtype == np.float16
    facts = json.loads((shards.folder / DATASET_FILE).read_text())
    assert facts["fields"] == {
        "number": {"dtype": "int64", "shape": []},
        "name": {"dtype": "str", "shape": []},
        "pair": {"dtype": "float16", "shape": [2]},
    }


def test_a_shard_that_is_cut_off_is_named_when_opened(shards):
    path = shards.path(1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"shard_00001\.array_record is damaged .*--resume"):
        ShardReader(shards.folder, "numbers")


def test_a_shard_of_too_few_records_is_named(shards):
    overwrite_record(shards, 1, [npz(number=3, name="sample 3", pair=np.zeros(2, np.float16))])
    with pytest.raises(ValueError, match=r"shard_00001.* damaged \(it has 1 records of 3"):
        ShardReader(shards.folder, "numbers")


def second_shard(shards):
    """Its samples, or why they cannot be read."""
    try:
        reader = ShardReader(shards.folder, "numbers")
        return [reader[index] for index in (3, 4, 5)]
    except ValueError as error:
        return error


def flipped_bits(content: bytes) -> list[int]:
    """Every 50th bit of all that is not padding."""
    used = [place for place, byte in enumerate(content) if byte]
    return [8 * place + place % 8 for place in used[::50]]


def test_a_flipped_bit_is_named_or_changes_nothing(shards):
    path, expected, refused = shards.path(1), second_shard(shards), 0
    content = path.read_bytes()
    places = flipped_bits(content)
    for bit in places:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        found = second_shard(shards)
        if isinstance(found, ValueError):
            assert f"{path} is damaged" in str(found)
            refused += 1
            continue
        for before, after in zip(expected, found, strict=True):
            for name, array in before.items():
                np.testing.assert_array_equal(after[name], array)
    assert refused > len(places) // 2


def test_a_flipped_bit_of_an_array_is_seen_by_the_record_itself(shards):
    """The container's own checksum is right: the damage was there when it was written."""
    good = {"number": np.int64(3), "name": "sample 3", "pair": np.asarray([1, 2], np.float16)}
    record = bytearray(npz(**good))
    place = record.index(good["pair"].tobytes())
    record[place] ^= 1
    overwrite_record(shards, 1, [bytes(record), npz(**good), npz(**good)])
    reader = ShardReader(shards.folder, "numbers")
    assert reader[4]["number"] == 3
    with pytest.raises(ValueError, match=r"shard_00001.*damaged \(sample 3: .*CRC"):
        reader[3]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pair": None}, r"pair absent where it is float16 \[2\]"),
        ({"pair": np.zeros(3, np.float16)}, r"pair float16 \[3\] where it is float16 \[2\]"),
        ({"pair": np.zeros(2, np.float32)}, r"pair float32 \[2\] where it is float16 \[2\]"),
        ({"more": np.zeros(1)}, r"more float64 \[1\] where it is absent"),
    ],
)
def test_a_record_with_other_fields_is_named(shards, changed, message):
    good = {"number": np.int64(3), "name": "sample 3", "pair": np.zeros(2, np.float16)}
    other = {name: value for name, value in {**good, **changed}.items() if value is not None}
    overwrite_record(shards, 1, [npz(**good), npz(**other), npz(**good)])
    reader = ShardReader(shards.folder, "numbers")
    assert reader[3]["number"] == 3
    with pytest.raises(ValueError, match=rf"shard_00001.*sample 4 has {message}"):
        reader[4]


def test_shards_of_one_dataset_have_the_same_fields(shards):
    shards.path(2).unlink()
    with pytest.raises(ValueError, match=r"has pair float16 \[3\] where it is float16 \[2\]"):
        shards.write(2, {**rows(shards, 2), "pair": np.zeros((1, 3), np.float16)})
    assert list(shards.missing()) == [2]


def test_describing_again_keeps_the_fields(shards):
    """As a resumed job does."""
    before = json.loads((shards.folder / DATASET_FILE).read_text())
    shards.describe({"kind": "numbers"})
    assert json.loads((shards.folder / DATASET_FILE).read_text()) == before


@pytest.mark.parametrize(("samples", "size"), [(0, 1), (1, 0)])
def test_a_dataset_of_nothing_is_refused(tmp_path, samples, size):
    with pytest.raises(ValueError, match="both must be 1 or more"):
        Shards(tmp_path, samples, size)
