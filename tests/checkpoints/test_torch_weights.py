"""Torch files and safetensors are read right, or refused in one line; nothing is executed."""

import collections
import json
import pathlib
import pickle
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shotstream_jax.checkpoints.torch_reader import DTYPES
from shotstream_jax.checkpoints.torch_weights import open_weights
from shotstream_jax.checkpoints.torch_writer import write_torch

VALUES = np.arange(24, dtype=np.float32)


def read_all(path: pathlib.Path, **kwargs) -> dict[str, np.ndarray]:
    return {name: np.asarray(tensor) for name, tensor in open_weights(path, **kwargs).items()}


def refusal(path: pathlib.Path, **kwargs) -> str:
    """What is said when a file is opened and all of it read; always one line."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        read_all(path, **kwargs)
    return str(caught.value)


@pytest.fixture
def plain(tmp_path):
    """A small torch file, whole."""
    path = tmp_path / "plain.pt"
    write_torch(path, {"a": VALUES.reshape(4, 6), "b": np.ones(3, ml_dtypes.bfloat16)}, "generator")
    return path


def test_views_of_one_storage_are_told_apart(torch_file, storage, strided):
    shared = storage("0", VALUES)
    views = {
        "whole": strided(shared, 0, (4, 6), (6, 1)),
        "turned": strided(shared, 0, (6, 4), (1, 6)),
        "corner": strided(shared, 8, (2, 3), (6, 1)),
        "every_other": strided(shared, 1, (4,), (2,)),
        "number": strided(shared, 23, (), ()),
        "repeated": strided(shared, 5, (3, 2), (0, 1)),
        "empty": strided(shared, 0, (0, 6), (6, 1)),
    }
    square = VALUES.reshape(4, 6)
    read = open_weights(torch_file(views))
    np.testing.assert_array_equal(read["whole"], square)
    np.testing.assert_array_equal(read["turned"], square.T)
    np.testing.assert_array_equal(read["corner"], square[1:3, 2:5])
    np.testing.assert_array_equal(read["every_other"], [1, 3, 5, 7])
    np.testing.assert_array_equal(read["number"], 23)
    np.testing.assert_array_equal(read["repeated"], [[5, 6]] * 3)
    assert np.asarray(read["empty"]).shape == (0, 6)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_each_dtype_comes_back(tmp_path, dtype):
    values = np.array([[0, 1, 1], [1, 0, 2]]).astype(dtype)
    write_torch(tmp_path / "it.pt", {"x": values})
    read = open_weights(tmp_path / "it.pt")["x"]
    assert (read.dtype, read.shape) == (dtype, (2, 3))
    assert np.asarray(read).dtype == dtype
    np.testing.assert_array_equal(read, values)


def test_parameters_ordered_dicts_and_numbers_are_no_obstacle(torch_file, storage, strided):
    class Parameter:
        def __reduce__(self):
            tensor = strided(storage("0", VALUES), 0, (24,), (1,))
            arguments = (tensor, True, collections.OrderedDict())
            return sys.modules["torch._utils"]._rebuild_parameter, arguments

    state = collections.OrderedDict(weight=Parameter())
    vars(state)["_metadata"] = {"version": 1}
    read = open_weights(torch_file({"net": state, "step": 7, "names": ["x"], "none": None}))
    assert list(read) == ["net.weight"]
    np.testing.assert_array_equal(read["net.weight"], VALUES)


def test_a_section_is_one_branch_without_its_name(plain):
    assert list(open_weights(plain)) == ["generator.a", "generator.b"]
    assert list(open_weights(plain, section="generator")) == ["a", "b"]
    assert "'critic'" in refusal(plain, section="critic")
    assert "it has generator" in refusal(plain, section="critic")


def test_optimizer_entries_are_listed_and_not_read(torch_file, storage, strided):
    content = {
        "generator": {"w": strided(storage("0", VALUES), 0, (24,), (1,))},
        "generator_optimizer": {
            "state": {0: {"exp_avg": strided(storage("1", VALUES), 0, (24,), (1,))}},
            "param_groups": [{"lr": 1e-4}],
        },
    }
    path = torch_file(content)
    damage(path, "data/1")
    np.testing.assert_array_equal(open_weights(path, "generator")["w"], VALUES)
    assert "generator_optimizer.state.0.exp_avg" in open_weights(path)
    assert "data/1" in refusal(path)


def damage(path: pathlib.Path, member: str) -> None:
    """Turn over one byte of a member's content."""
    with zipfile.ZipFile(path) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith(member))
    content = bytearray(path.read_bytes())
    name, extra = (
        int.from_bytes(content[info.header_offset + at :][:2], "little") for at in (26, 28)
    )
    content[info.header_offset + 30 + name + extra + info.file_size // 2] ^= 0xFF
    path.write_bytes(content)


def test_values_are_views_of_the_file(plain):
    assert not np.asarray(open_weights(plain)["generator.a"]).flags.writeable
    assert not np.asarray(open_weights(plain)["generator.a"]).flags.owndata


@pytest.mark.parametrize("inside", ["tensor", "dict"])
def test_a_forbidden_global_is_named_and_not_called(tmp_path, torch_file, inside):
    made = tmp_path / "executed"

    class Command:
        def __reduce__(self):
            return open, (str(made), "w")

    message = refusal(torch_file({"generator": Command()} if inside == "dict" else Command()))
    assert "io.open" in message
    assert "nothing was executed" in message
    assert not made.exists()


@pytest.mark.parametrize(
    "name",
    [
        "posix system",
        "builtins eval",
        "builtins getattr",
        "torch load",
        "torch._utils __builtins__",
        "collections OrderedDict.__init__",
        "numpy.core.multiarray _reconstruct",
    ],
)
def test_only_a_few_globals_are_known(pickled_file, name):
    module, attribute = name.split()
    message = refusal(pickled_file(f"\x80\x02c{module}\n{attribute}\n.".encode("latin-1")))
    assert f"{module}.{attribute}" in message


def test_a_pickle_cannot_change_what_it_was_given(pickled_file):
    function = b"ctorch._utils\n_rebuild_tensor_v2\n"
    state = b"N}X\x0c\x00\x00\x00__defaults__K\x01s\x86"
    assert "attributes of what has none" in refusal(
        pickled_file(b"\x80\x02" + function + state + b"b.")
    )


def test_a_tensor_cannot_reach_beyond_its_storage(torch_file, storage, strided):
    path = torch_file({"w": strided(storage("0", VALUES), 20, (5,), (1,))})
    message = refusal(path)
    assert "element 24" in message
    assert "holds 24" in message


@pytest.mark.parametrize(
    "arguments", [(0, (-1,), (1,)), (0, (2,), (-1,)), (-3, (2,), (1,)), (0, (2, 2), (1,))]
)
def test_sizes_that_are_none_are_refused(torch_file, storage, strided, arguments):
    assert "describes no tensors" in refusal(
        torch_file({"w": strided(storage("0", VALUES), *arguments)})
    )


def test_dicts_that_hold_themselves_are_refused(pickled_file):
    assert "nests more than" in refusal(pickled_file(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."))


def test_a_missing_storage_is_refused(torch_file, storage, strided, tmp_path):
    whole = torch_file({"w": strided(storage("0", VALUES), 0, (24,), (1,))})
    short = tmp_path / "short.pt"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(short, "w") as new:
        for name in old.namelist():
            if "/data/" not in name:
                new.writestr(name, old.read(name))
    assert "holds 0" in refusal(short)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kept=st.floats(0, 1, exclude_max=True))
def test_a_file_that_ends_too_early_is_refused(plain, kept):
    whole = plain.read_bytes()
    cut = plain.with_name("cut.pt")
    cut.write_bytes(whole[: int(kept * len(whole))])
    assert "fetch it again" in refusal(cut)


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_one_changed_byte_is_noticed_or_does_not_matter(plain, place, bits):
    expected = read_all(plain)
    content = bytearray(plain.read_bytes())
    content[int(place * len(content))] ^= bits
    changed = plain.with_name("changed.pt")
    changed.write_bytes(content)
    try:
        read = read_all(changed)
    except ValueError:
        return
    assert read.keys() == expected.keys()
    assert all(np.array_equal(read[name], expected[name]) for name in expected)


def test_the_old_format_is_named(tmp_path):
    path = tmp_path / "old.pt"
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}):
            pickle.dump(part, file, protocol=2)
    message = refusal(path)
    assert "old format" in message
    assert "torch.save it again" in message


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"version 2"])
def test_other_files_are_told_from_torch_files(tmp_path, content):
    path = tmp_path / "page.pt"
    path.write_bytes(content)
    assert "not a torch file" in refusal(path)


def test_other_zip_files_are_told_from_torch_files(tmp_path):
    path = tmp_path / "other.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not one of torch's" in refusal(path)


def test_compressed_and_big_endian_files_are_refused(torch_file, storage, strided, tmp_path):
    content = {"w": strided(storage("0", VALUES), 0, (24,), (1,))}
    assert "big-endian" in refusal(torch_file(content, byteorder=b"big"))
    packed = tmp_path / "packed.pt"
    with (
        zipfile.ZipFile(torch_file(content)) as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "compressed" in refusal(packed)


def test_missing_files_and_other_suffixes_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.pt"):
        open_weights(tmp_path / "nothing.pt")
    (tmp_path / "weights.h5").write_bytes(b"x")
    assert ".safetensors" in refusal(tmp_path / "weights.h5")


def test_safetensors_written_elsewhere_are_read(tmp_path):
    tensors = {"a": VALUES.reshape(4, 6), "b": np.ones(3, ml_dtypes.bfloat16)}
    safetensors.numpy.save_file(tensors, tmp_path / "x.safetensors")
    read = open_weights(tmp_path / "x.safetensors")
    for name, values in tensors.items():
        assert (read[name].dtype, read[name].shape) == (values.dtype, values.shape)
        np.testing.assert_array_equal(read[name], values)


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_truncated_safetensors_are_refused(tmp_path, kept):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"a": VALUES}, path)
    path.write_bytes(path.read_bytes()[:kept])
    assert "damaged" in refusal(path)


def test_shards_are_read_as_one_file(tmp_path, shards):
    tensors = {name: VALUES + i for i, name in enumerate("abc")}
    read = open_weights(shards(tmp_path, "model", tensors))
    assert read.keys() == tensors.keys()
    for name, values in tensors.items():
        np.testing.assert_array_equal(read[name], values)


def test_indices_of_shards_that_lie_are_refused(tmp_path, shards):
    index = shards(tmp_path, "model", {"a": VALUES, "b": VALUES})
    listed = json.loads(index.read_text())["weight_map"]

    def lie(**changes: str) -> str:
        index.write_text(json.dumps({"weight_map": listed | changes}))
        return refusal(index)

    assert "lists c" in lie(c=listed["a"])
    assert "not beside it" in lie(c="../elsewhere.safetensors")
    assert "not beside it" in lie(c=index.name)
    index.write_text("{")
    assert "no index of shards" in refusal(index)
    index.write_text(json.dumps({"weight_map": listed | {"c": "gone.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        open_weights(index)
