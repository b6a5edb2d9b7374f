"""Official weights become a checkpoint and official weights again, value for value."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest

from shotstream_jax.checkpoints.lora_source import LoRARequest
from shotstream_jax.checkpoints.manager import load_network, read_config
from shotstream_jax.checkpoints.names_dit import dit_names
from shotstream_jax.checkpoints.names_vae import vae_names
from shotstream_jax.checkpoints.official import export_official, import_source
from shotstream_jax.checkpoints.param_trees import build_params
from shotstream_jax.checkpoints.report import PartialWeightsError
from shotstream_jax.checkpoints.torch_weights import open_weights
from shotstream_jax.checkpoints.torch_writer import write_torch
from shotstream_jax.checkpoints.weight_sources import find_source, with_loras
from shotstream_jax.model_config import LoRAConfig, RolloutConfig

FILES = {
    "dit": "diffusion_pytorch_model.safetensors",
    "vae": "Wan2.1_VAE.pth",
    "text": "models_t5_umt5-xxl-enc-bf16.pth",
}


@pytest.fixture
def checkpoint(wan_folder, tmp_path):
    import_source(find_source(wan_folder), tmp_path / "film")
    return tmp_path / "film"


@pytest.mark.parametrize("network", FILES)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_there_and_back_is_the_identity(checkpoint, wan_folder, tmp_path, network, suffix):
    file = tmp_path / f"back{suffix}"
    export_official(checkpoint, file, network=network)
    before, after = open_weights(wan_folder / FILES[network]), open_weights(file)
    wrapper = "generator.model." if network == "dit" and suffix != ".safetensors" else ""
    assert after.keys() == {wrapper + name for name in before}
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[wrapper + name], tensor)


def test_what_was_written_is_what_is_loaded(checkpoint, random_tensors, sizes):
    table = dit_names(sizes["dit"])
    expected = build_params(table, random_tensors(table))
    jax.tree.map(np.testing.assert_array_equal, load_network(checkpoint, "dit"), expected)


def test_every_layout_gives_the_same_checkpoint(diffusers_folder, checkpoint, tmp_path):
    import_source(find_source(diffusers_folder), tmp_path / "other")
    for network in FILES:
        one, other = (load_network(f, network) for f in (checkpoint, tmp_path / "other"))
        # Both folders drew the same numbers in the order of their tables, which is the same.
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_dtypes_are_cast_both_ways(wan_folder, tmp_path, random_tensors, sizes):
    import_source(find_source(wan_folder), tmp_path / "film", dtype="bfloat16")
    export_official(tmp_path / "film", tmp_path / "x.safetensors", dtype="float32")
    for name, values in random_tensors(dit_names(sizes["dit"])).items():
        tensor = open_weights(tmp_path / "x.safetensors")[name]
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, values.astype(ml_dtypes.bfloat16))


def test_the_config_tells_where_weights_are_from(checkpoint, sizes):
    config = read_config(checkpoint)
    assert config.weights == "converted"
    assert config.rollout is None
    source = config.source["dit"]
    assert source["files"] == [FILES["dit"]]
    assert source["format"] == "Wan2.1 transformer"
    assert source["used"] == len(dit_names(sizes["dit"]))
    assert source["missing"] == source["unexpected"] == source["misshaped"] == []
    assert len(source["digest"]) == 64
    assert (checkpoint / "tokenizer" / "tokenizer.json").is_file()


def test_rollout_settings_travel_with_the_weights(wan_folder, tmp_path):
    rollout = RolloutConfig(shift=5.0)
    import_source(find_source(wan_folder), tmp_path / "film", rollout=rollout)
    assert read_config(tmp_path / "film").rollout == rollout


def test_nothing_but_the_checkpoint_is_left(checkpoint, tmp_path):
    assert {path.name for path in tmp_path.iterdir()} == {"wan", "film"}
    expected = {"config.json", "files.json", "tokenizer", *FILES}
    assert {path.name for path in checkpoint.iterdir()} == expected


def test_each_network_is_announced(wan_folder, tmp_path):
    heard = []
    import_source(find_source(wan_folder), tmp_path / "film", started=heard.append)
    assert sorted(heard) == sorted(FILES)


def test_partial_networks_are_refused_before_anything_is_written(
    wan_folder, tmp_path, random_tensors, sizes
):
    tensors = random_tensors(vae_names(sizes["vae"]))
    del tensors["decoder.head.2.bias"]
    write_torch(wan_folder / FILES["vae"], tensors)
    with pytest.raises(PartialWeightsError, match=r"autoencoder in Wan2\.1_VAE\.pth do not fill"):
        import_source(find_source(wan_folder), tmp_path / "film")
    assert {path.name for path in tmp_path.iterdir()} == {"wan"}


def test_damage_found_on_the_way_leaves_nothing(wan_folder, tmp_path):
    path = wan_folder / FILES["vae"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"Wan2\.1_VAE\.pth is damaged"):
        import_source(find_source(wan_folder), tmp_path / "film")
    assert {path.name for path in tmp_path.iterdir()} == {"wan"}


def test_a_kept_lora_is_merged_on_the_way_back(wan_folder, lora_file, tmp_path):
    source = find_source(wan_folder)
    import_source(
        with_loras(source, [LoRARequest(lora_file())], alpha=6.0, keep=True), tmp_path / "kept"
    )
    import_source(with_loras(source, [LoRARequest(lora_file())], alpha=6.0), tmp_path / "merged")
    assert read_config(tmp_path / "kept").lora == LoRAConfig(rank=2, alpha=6.0)
    assert load_network(tmp_path / "kept", "lora")["blocks"]["ffn"]["up"]["a"].shape == (3, 16, 2)
    for name in ("kept", "merged"):
        export_official(tmp_path / name, tmp_path / f"{name}.pt")
    kept, merged = (open_weights(tmp_path / f"{name}.pt") for name in ("kept", "merged"))
    assert kept.keys() == merged.keys()
    for name in kept:
        np.testing.assert_array_equal(kept[name], merged[name])


def test_files_of_other_kinds_are_not_written(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"ends in '\.bin'; official files end in"):
        export_official(checkpoint, tmp_path / "x.bin")


def test_networks_that_are_not_there_are_not_exported(wan_folder, tmp_path):
    vae = find_source(next(wan_folder.glob("*VAE.pth")))
    import_source(vae, tmp_path / "film")
    with pytest.raises(ValueError, match="holds vae and no dit"):
        export_official(tmp_path / "film", tmp_path / "x.pt")
    assert json.loads((tmp_path / "film" / "config.json").read_text())["networks"].keys() == {"vae"}
