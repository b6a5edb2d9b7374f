"""Pickles that would take all memory, all time or the stack are refused at once."""

import pickle
import struct
import time
import zipfile

import ml_dtypes
import numpy as np
import pytest

from shotstream_jax.checkpoints import pickle_reader, torch_reader
from shotstream_jax.checkpoints.pickle_reader import read_pickle
from shotstream_jax.checkpoints.torch_weights import open_weights

HEAD = b"\x80\x02"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def deep_key(depth: int) -> bytes:
    return b"}" + b")" + b"\x85" * depth + b"K\x01s"


def nested(depth: int) -> bytes:
    return b"".join(b"}" + text("a") for _ in range(depth)) + b"}" + b"s" * depth


def tower(levels: int, width: int) -> bytes:
    """Dicts that refer `width` times to the one below."""
    said = b"}q\x00"
    for level in range(1, levels + 1):
        said += b"}" + bytes([*b"q", level])
        for number in range(width):
            said += text(str(number)) + bytes([*b"h", level - 1]) + b"s"
    return said


BOMBS = {
    "a key of tuples 8,000 deep": (deep_key(8_000), "a key is a tuple"),
    "a key of tuples 5,000 deep": (deep_key(5_000), "a key is a tuple"),
    "dicts 50 deep": (nested(50), "nests more than 16"),
    "dicts 3,000 deep": (nested(3_000), "nests more than 16"),
    "a tower of dicts": (tower(14, 30), "each counted as often as it is referred to"),
    "an OrderedDict of itself": (
        b"ccollections\nOrderedDict\n](](K\x01K\x02eee\x85R", "lacks its mark|OrderedDict of"),
    "an OrderedDict with its own items": (
        b"ccollections\nOrderedDict\n)Rq\x00}" + text("items") + b"h\x00sb", None),
    "a dict that holds itself": (b"}q\x00" + text("a") + b"h\x00s", "nests more than 16"),
    "a list that holds itself": (b"]q\x00h\x00a", None),
    "an empty place of the memo": (b"j" + struct.pack("<I", 300_000_000), "which is empty"),
    "a text of 4 GiB": (b"X\xff\xff\xff\xff", "ends too early"),
    "a text of 2^64 bytes": (b"\x8d" + b"\xff" * 8, "ends too early"),
    "a number of 2^31 bytes": (b"\x8b\xff\xff\xff\x7f", "opcode"),
    "a number in digits": (b"I" + b"9" * 100_000 + b"\n", "opcode"),
    "bytes": (b"B\x01\x00\x00\x00a", "opcode"),
    "marks alone": (b"(" * 5_000, "lacks its argument"),
    "too many opcodes": (b"N" * 11_000, "more than 10000 opcodes"),
    "a long key": (b"}" + text("a" * 5_000) + b"Ns", "5000 characters"),
    "a key that is no text": (b"}G" + b"\x00" * 8 + b"Ns", "a key is a float"),
    "nothing": (b"", "lacks its argument"),
    "a value that is called": (b"N)R", "no function"),
    "a text that is no text": (b"X\x01\x00\x00\x00\xff", "codec"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_pickles_that_never_end_are_refused_at_once(name, pickled_file, monkeypatch):
    """Kind: a description that costs more than its size; nothing is executed or allocated."""
    # Types are checked in tests at every call; the real limit takes 2 s without.
    monkeypatch.setattr(pickle_reader, "_MOST_OPCODES", 10_000)
    monkeypatch.setattr(torch_reader, "_MOST_DICTS", 1_000)
    opcodes, message = BOMBS[name]
    path = pickled_file(HEAD + opcodes + b".")
    began = time.process_time()
    if message is None:
        assert open_weights(path) == {}
    else:
        with pytest.raises(ValueError, match=rf"\A[^\n]*({message})[^\n]*\Z"):
            open_weights(path)
    assert time.process_time() - began < 30


def test_a_large_place_of_the_memo_costs_nothing(pickled_file):
    """Kind: a number in a file is no size."""
    place = struct.pack("<I", 300_000_000)
    assert open_weights(pickled_file(HEAD + b"}r" + place + b"0."[1:])) == {}
    assert read_pickle(HEAD + b"}r" + place + b"j" + place + b"\x86.", {}) == ({}, {})


def test_a_description_of_an_absurd_size_is_refused():
    """Kind: stated limits."""
    with pytest.raises(ValueError, match="at most 16777216 are read"):
        read_pickle(b"N" * (1 << 24) + b"..", {})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_that_torch_can_write_is_read(protocol):
    content = {"a": [1, 2.5, None, True, "x"], 3: (1, (2, 3), -5, 1 << 40), "b": {}}
    assert read_pickle(pickle.dumps(content, protocol), {}) == content


def test_dicts_that_are_there_twice_have_both_names(torch_file, storage, strided):
    """Kind: sharing is no bomb."""
    one = {"w": strided(storage("0", np.arange(6, dtype=np.float32)), 0, (6,), (1,))}
    assert list(open_weights(torch_file({"model": one, "ema": one}))) == ["model.w", "ema.w"]


def test_eighths_are_read_from_torch_files(pickled_file):
    """Kind: fp8 as torch saves it, in a storage without a type."""
    storage = (
        b"(" + text("storage") + b"ctorch.storage\nUntypedStorage\n" + text("0") + text("cpu")
        + b"K\x06tQ"
    )  # fmt: skip
    call = b"ctorch._utils\n_rebuild_tensor_v3\n(" + storage + b"K\x00K\x02K\x03\x86K\x03K\x01\x86"
    call += b"\x89}ctorch\nfloat8_e4m3fn\n}tR"
    path = pickled_file(HEAD + b"}" + text("w") + call + b"s.")
    values = np.arange(6).astype(ml_dtypes.float8_e4m3fn)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("opcodes/data/0", values.tobytes())
    read = open_weights(path)["w"]
    assert (read.shape, read.dtype) == ((2, 3), ml_dtypes.float8_e4m3fn)
    np.testing.assert_array_equal(np.asarray(read).reshape(-1), values)
