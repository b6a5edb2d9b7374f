"""Small random weights of every kind, and torch files made by an independent pickler."""

import collections
import io
import json
import pathlib
import pickle
import sys
import types
import zipfile
from typing import Any

import numpy as np
import pytest

from shotstream_jax.checkpoints.names_dit import diffusers_dit_names, dit_names
from shotstream_jax.checkpoints.names_text import hf_text_names, text_names
from shotstream_jax.checkpoints.names_vae import diffusers_vae_names, vae_names
from shotstream_jax.checkpoints.safetensors_files import write_safetensors
from shotstream_jax.checkpoints.torch_writer import write_torch
from shotstream_jax.models.configs import DiTConfig, TextEncoderConfig, VAEConfig

DIT = DiTConfig(
    dim=16, layers=3, heads=2, ffn_dim=24, freq_dim=8, text_dim=12, text_tokens=7, latent_channels=2
)
VAE = VAEConfig(
    base_channels=4,
    latent_channels=2,
    multipliers=(1, 2),
    residual_blocks=1,
    temporal_downsample=(True,),
    latent_mean=(0.5, -0.5),
    latent_std=(1.0, 2.0),
)
TEXT = TextEncoderConfig(
    vocab=11, dim=12, attention_dim=8, ffn_dim=20, heads=2, layers=2, buckets=8
)
WAN_SETTINGS = {"dim": 16, "num_heads": 2, "text_len": 7}
DIFFUSERS_SETTINGS = {"num_attention_heads": 2, "attention_head_dim": 8}
VAE_SETTINGS = {"latents_mean": [0.5, -0.5], "latents_std": [1.0, 2.0]}


class TorchPickler(pickle.Pickler):
    """Pickles arrays as torch pickles tensors, with classes that only bear torch's names."""

    def __init__(self, file: Any, modules: dict[str, types.ModuleType]):
        super().__init__(file, protocol=2)
        self.modules, self.storages = modules, {}

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        self.storages[obj.key] = obj.array
        kind = getattr(self.modules["torch"], obj.kind)
        return ("storage", kind, obj.key, "cpu", obj.array.size)


class Storage:
    def __init__(self, key: str, array: np.ndarray, kind: str = "FloatStorage"):
        self.key, self.array, self.kind = key, array, kind


class Strided:
    """A view of a storage, in elements; pickled as torch rebuilds tensors."""

    def __init__(self, storage: Storage, offset: int, shape: tuple, strides: tuple):
        self.arguments = (storage, offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


@pytest.fixture(scope="session")
def storage():
    return Storage


@pytest.fixture(scope="session")
def strided():
    return Strided


@pytest.fixture
def torch_names(monkeypatch):
    """Modules that bear torch's names, for as long as a file is pickled."""

    def named(module: str, name: str) -> Any:
        made = type(name, (), {"__module__": module})
        monkeypatch.setattr(modules[module], name, made, raising=False)
        return made

    modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    for storage in ("FloatStorage", "HalfStorage", "LongStorage"):
        named("torch", storage)
    for rebuild in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        named("torch._utils", rebuild)
    return modules


@pytest.fixture
def torch_file(tmp_path, torch_names):
    """Write an object with `Strided` views in it as a torch file."""

    def write(content: Any, name: str = "made.pt", **members: bytes) -> pathlib.Path:
        buffer = io.BytesIO()
        pickler = TorchPickler(buffer, torch_names)
        pickler.dump(content)
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("made/data.pkl", buffer.getvalue())
            for key, array in pickler.storages.items():
                archive.writestr(f"made/data/{key}", array.tobytes())
            for member, value in members.items():
                archive.writestr(f"made/{member}", value)
        return path

    return write


@pytest.fixture
def pickled_file(tmp_path):
    """Write a torch file around opcodes that are given."""

    def write(opcodes: bytes) -> pathlib.Path:
        path = tmp_path / "opcodes.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("opcodes/data.pkl", opcodes)
        return path

    return write


def draw(table, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.normal(size=s.shape).astype(np.float32) for name, s in table.items()}


@pytest.fixture
def random_tensors():
    """Random float32 tensors for every name of a table."""
    return draw


@pytest.fixture(scope="session")
def sizes():
    """Sizes of the small networks, by name."""
    return {"dit": DIT, "vae": VAE, "text": TEXT}


@pytest.fixture
def wan_folder(tmp_path) -> pathlib.Path:
    """A folder as Wan2.1 is published, with small random networks."""
    folder = tmp_path / "wan"
    write_safetensors(folder / "diffusion_pytorch_model.safetensors", draw(dit_names(DIT)))
    write_torch(folder / "Wan2.1_VAE.pth", draw(vae_names(VAE)))
    write_torch(folder / "models_t5_umt5-xxl-enc-bf16.pth", draw(text_names(TEXT)))
    (folder / "config.json").write_text(json.dumps(WAN_SETTINGS | VAE_SETTINGS))
    (folder / "google" / "umt5-xxl").mkdir(parents=True)
    (folder / "google" / "umt5-xxl" / "tokenizer.json").write_text('{"model": {}}')
    return folder


@pytest.fixture
def diffusers_folder(tmp_path) -> pathlib.Path:
    """A folder as diffusers lays pipelines out; the transformer and text encoder are in shards."""
    folder = tmp_path / "diffusers"
    for part, tensors, settings in (
        ("transformer", draw(diffusers_dit_names(DIT)), DIFFUSERS_SETTINGS),
        ("text_encoder", draw(hf_text_names(TEXT)), {}),
    ):
        stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        write_shards(folder / part, stem, tensors)
        (folder / part / "config.json").write_text(json.dumps(settings))
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    write_safetensors(vae, draw(diffusers_vae_names(VAE)))
    (folder / "vae" / "config.json").write_text(json.dumps(VAE_SETTINGS))
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text('{"model": {}}')
    return folder


def write_shards(folder: pathlib.Path, stem: str, tensors: dict[str, np.ndarray]) -> pathlib.Path:
    """Write every second tensor into each of two files, and an index of them."""
    index = {}
    for part in range(2):
        name = f"{stem}-0000{part + 1}-of-00002.safetensors"
        shard = dict(list(tensors.items())[part::2])
        write_safetensors(folder / name, shard)
        index |= dict.fromkeys(shard, name)
    path = folder / f"{stem}.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    return path


@pytest.fixture
def shards():
    return write_shards


@pytest.fixture
def lora_file(tmp_path, sizes):
    """A LoRA file of rank 2 in peft's layout, as ShotStream names it."""

    def write(drop: str = "", name: str = "lora.pt") -> pathlib.Path:
        random = np.random.default_rng(5)
        tensors = {}
        for kernel, mapping in dit_names(sizes["dit"]).items():
            if mapping.layer is not None and mapping.path[-1] == "kernel":
                out, into = mapping.shape
                module = "base_model.model." + kernel.removesuffix("weight")
                tensors[module + "lora_A.weight"] = random.normal(size=(2, into))
                tensors[module + "lora_B.weight"] = random.normal(size=(out, 2))
        kept = {k: v.astype(np.float32) for k, v in tensors.items() if k != drop}
        write_torch(tmp_path / name, kept, section="generator_lora")
        return tmp_path / name

    return write
