"""Files written here are what torch and safetensors expect, and appear whole or not at all."""

import pickletools
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from shotstream_jax.checkpoints.safetensors_files import write_safetensors
from shotstream_jax.checkpoints.tensors import LazyArray
from shotstream_jax.checkpoints.torch_reader import DTYPES
from shotstream_jax.checkpoints.torch_weights import open_weights
from shotstream_jax.checkpoints.torch_writer import write_torch

TENSORS = {
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
    "turned": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "half": np.ones((2, 2, 2), ml_dtypes.bfloat16),
    "number": np.float32(2.5).reshape(()),
    "nothing": np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_written_is_read_back(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    write_torch(path, TENSORS) if suffix == ".pt" else write_safetensors(path, TENSORS)
    read = open_weights(path)
    assert read.keys() == TENSORS.keys()
    for name, values in TENSORS.items():
        assert (read[name].dtype, read[name].shape) == (values.dtype, values.shape)
        np.testing.assert_array_equal(read[name], values)


def test_safetensors_reads_our_safetensors(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", TENSORS)
    read = safetensors.numpy.load_file(tmp_path / "x.safetensors")
    assert all(np.array_equal(read[name], values) for name, values in TENSORS.items())


def test_torch_reads_our_torch_files(tmp_path):
    torch = pytest.importorskip("torch")
    write_torch(tmp_path / "x.pt", TENSORS, section="generator")
    for mmap in (False, True):
        read = torch.load(tmp_path / "x.pt", weights_only=True, mmap=mmap)["generator"]
        assert list(read) == list(TENSORS)
        for name, values in TENSORS.items():
            np.testing.assert_array_equal(read[name].float().numpy(), values.astype(np.float32))


def test_we_read_what_torch_writes(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    linear = torch.nn.Linear(3, 2)
    content = {
        "generator": {"a": base, "turned": base.T, "slice": base[1:3, ::2]},
        "net": linear.state_dict(),
        "parameter": torch.nn.Parameter(base.bfloat16()),
        "optimizer": torch.optim.AdamW(linear.parameters()).state_dict(),
        **{str(kind): torch.ones(2).to(kind) for kind in (torch.half, torch.long, torch.bool)},
    }
    torch.save(content, tmp_path / "x.pt")
    read = open_weights(tmp_path / "x.pt")
    np.testing.assert_array_equal(read["generator.turned"], base.T.numpy())
    np.testing.assert_array_equal(read["generator.slice"], base[1:3, ::2].numpy())
    np.testing.assert_array_equal(read["net.weight"], linear.weight.detach().numpy())
    assert read["parameter"].dtype == ml_dtypes.bfloat16
    assert read["torch.bool"].dtype == np.bool_


def test_values_start_where_torch_maps_them(tmp_path):
    path = tmp_path / "x.pt"
    write_torch(path, TENSORS)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if "/data/" in info.filename]
    assert len(members) == len(TENSORS)
    for info in members:
        header = whole[info.header_offset : info.header_offset + 30]
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        assert (info.header_offset + 30 + lengths) % 64 == 0


def test_the_pickle_names_only_what_weights_need(tmp_path):
    write_torch(tmp_path / "x.pt", TENSORS, section="generator")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        opcodes = list(pickletools.genops(archive.read("x/data.pkl")))
    named = {argument for opcode, argument, _ in opcodes if opcode.name == "GLOBAL"}
    assert named == {
        "torch._utils _rebuild_tensor_v2",
        "collections OrderedDict",
        "torch FloatStorage",
        "torch BFloat16Storage",
    }


@pytest.mark.parametrize("write", [write_torch, write_safetensors])
def test_tensors_are_read_one_after_another_and_once(tmp_path, write):
    order = []

    def counted(name: str) -> LazyArray:
        return LazyArray(
            (2,), np.dtype(np.float32), lambda: order.append(name) or np.zeros(2, "f4")
        )

    write(tmp_path / "x.safetensors", {name: counted(name) for name in "abc"})
    assert order == ["a", "b", "c"]


@pytest.mark.parametrize("write", [write_torch, write_safetensors])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, write):
    path = tmp_path / "x.pt"
    path.write_text("before")

    def fail() -> np.ndarray:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(path, {"a": TENSORS["matrix"], "b": LazyArray((2,), np.dtype(np.float32), fail)})
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_torch, write_safetensors])
def test_dtypes_that_no_file_knows_are_refused(tmp_path, write):
    with pytest.raises(ValueError, match="complex64"):
        write(tmp_path / "x.pt", {"a": np.zeros(2, np.complex64)})
    assert np.dtype(np.complex64) not in DTYPES.values()
