"""Folders and files of weights are found whole, and whatever is missing is named."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from shotstream_jax.checkpoints.lora_source import LoRARequest
from shotstream_jax.checkpoints.names_dit import dit_names
from shotstream_jax.checkpoints.names_text import text_names
from shotstream_jax.checkpoints.names_vae import vae_names
from shotstream_jax.checkpoints.official import report_on
from shotstream_jax.checkpoints.torch_writer import write_torch
from shotstream_jax.checkpoints.weight_sources import find_source, with_loras
from shotstream_jax.model_config import LoRAConfig


@pytest.fixture
def shotstream(tmp_path, random_tensors, sizes):
    """A file as ShotStream's trainers save it: two networks, wrapped names."""
    table = dit_names(sizes["dit"])
    named = {
        f"{section}.model.{name}": values
        for seed, section in enumerate(("generator", "generator_ema"))
        for name, values in random_tensors(table, seed + 1).items()
    }
    path = tmp_path / "shotstream.pt"
    write_torch(path, named)
    return path


def sizes_of(source):
    return {name: part.config for name, part in source.networks.items()}


def test_a_wan_folder_holds_everything(wan_folder, sizes):
    source = find_source(wan_folder)
    assert sizes_of(source) == sizes
    assert all(report.whole for report in report_on(source).values())
    assert source.tokenizer == wan_folder / "google" / "umt5-xxl" / "tokenizer.json"
    assert source.networks["text"].files == ("models_t5_umt5-xxl-enc-bf16.pth",)


def test_a_diffusers_folder_holds_everything(diffusers_folder, sizes):
    found = sizes_of(find_source(diffusers_folder))
    assert (found["vae"], found["text"]) == (sizes["vae"], sizes["text"])
    # Diffusers does not say how long captions are.
    assert found["dit"] == dataclasses.replace(sizes["dit"], text_tokens=512)
    assert all(report.whole for report in report_on(find_source(diffusers_folder)).values())


def test_a_file_takes_the_rest_from_its_base(shotstream, wan_folder, sizes):
    source = find_source(shotstream, base=wan_folder)
    assert sizes_of(source) == sizes
    assert source.networks["dit"].files == ("shotstream.pt",)
    assert source.tokenizer is not None


@pytest.mark.parametrize(("section", "seed"), [(None, 1), ("generator", 1), ("generator_ema", 2)])
def test_the_generator_is_meant_unless_another_section_is_named(
    shotstream, wan_folder, random_tensors, sizes, section, seed
):
    part = find_source(shotstream, base=wan_folder, section=section).networks["dit"]
    for name, values in random_tensors(dit_names(sizes["dit"]), seed).items():
        np.testing.assert_array_equal(part.tensors[name], values)


def test_sizes_beside_a_file_come_before_those_of_its_base(shotstream, wan_folder, sizes):
    (shotstream.parent / "config.json").write_text(json.dumps({"num_heads": 4, "text_len": 9}))
    found = sizes_of(find_source(shotstream, base=wan_folder))["dit"]
    assert (found.heads, found.text_tokens) == (4, 9)


def test_the_base_needs_no_network_that_the_file_has(shotstream, wan_folder):
    (wan_folder / "diffusion_pytorch_model.safetensors").unlink()
    assert set(find_source(shotstream, base=wan_folder).networks) == {"dit", "vae", "text"}
    with pytest.raises(FileNotFoundError, match=r"has no diffusion_pytorch_model\.safetensors"):
        find_source(wan_folder)


@pytest.mark.parametrize("network", ["vae", "text"])
def test_other_networks_can_be_the_file_too(wan_folder, network):
    file = next(wan_folder.glob({"vae": "*VAE.pth", "text": "models_t5*"}[network]))
    (wan_folder / "elsewhere").mkdir()
    (wan_folder / "elsewhere" / "config.json").write_text((wan_folder / "config.json").read_text())
    moved = file.rename(wan_folder / "elsewhere" / file.name)
    assert set(find_source(moved, base=wan_folder).networks) == {"dit", "vae", "text"}


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("*VAE.pth", r"\*VAE\.pth"),
        ("models_t5*", r"models_t5_\*\.pth"),
        ("google/umt5-xxl/tokenizer.json", r"google/umt5-xxl/tokenizer\.json"),
    ],
)
def test_what_a_wan_folder_lacks_is_named(wan_folder, pattern, named):
    next(wan_folder.glob(pattern)).unlink()
    with pytest.raises(FileNotFoundError, match=rf"Wan2\.1 folder .* has no {named}; fetch"):
        find_source(wan_folder)


def test_what_a_diffusers_folder_lacks_is_named(diffusers_folder):
    shutil.rmtree(diffusers_folder / "tokenizer")
    shutil.rmtree(diffusers_folder / "vae")
    with pytest.raises(FileNotFoundError, match=r"no vae/.* and no tokenizer/tokenizer\.json"):
        find_source(diffusers_folder)


def test_a_lone_text_encoder_needs_a_tokenizer_beside_it(wan_folder):
    text = next(wan_folder.glob("models_t5*"))
    assert find_source(text).tokenizer == wan_folder / "google" / "umt5-xxl" / "tokenizer.json"
    shutil.rmtree(wan_folder / "google")
    with pytest.raises(FileNotFoundError, match="no tokenizer beside it"):
        find_source(text)


@pytest.mark.parametrize("content", ['{"model": ', "[]", '{"vocab": 1}', "\xff"])
def test_damaged_tokenizers_are_refused(wan_folder, content):
    path = wan_folder / "google" / "umt5-xxl" / "tokenizer.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"\A.*tokenizer\.json [^\n]+ fetch it again\.\Z"):
        find_source(wan_folder)


def test_damaged_settings_are_refused(wan_folder):
    (wan_folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        find_source(wan_folder)


def test_unknown_folders_and_files_are_refused(tmp_path, random_tensors, wan_folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no folder of a known kind"):
        find_source(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere"):
        find_source(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        find_source(wan_folder / "Wan2.1_VAE.pth", base=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"is a folder, which needs no base"):
        find_source(wan_folder, base=wan_folder)
    write_torch(tmp_path / "other.pt", {"conv.weight": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="none of the networks known here"):
        find_source(tmp_path / "other.pt")


def test_our_own_folders_are_told_from_official_ones(tmp_path, shotstream):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "config.json").write_text('{"format": "shotstream_jax"}')
    with pytest.raises(ValueError, match="is a checkpoint already"):
        find_source(tmp_path / "ours")
    (shotstream.parent / "config.json").write_text('{"num_heads": 2}')
    with pytest.raises(ValueError, match="is a checkpoint already"):
        find_source(shotstream, base=tmp_path / "ours")


def test_what_does_not_fit_is_in_the_report(wan_folder, random_tensors, sizes):
    tensors = random_tensors(vae_names(sizes["vae"]))
    tensors["extra.weight"] = tensors.pop("decoder.head.2.bias")
    write_torch(wan_folder / "Wan2.1_VAE.pth", tensors)
    report = report_on(find_source(wan_folder))["vae"]
    assert report.missing == ("decoder.head.2.bias",)
    assert report.unexpected == ("extra.weight",)


def test_a_lora_is_merged_or_kept(wan_folder, lora_file):
    source = find_source(wan_folder)
    kept = with_loras(source, [LoRARequest(lora_file())], alpha=4.0, keep=True)
    assert kept.networks["lora"].config == LoRAConfig(rank=2, alpha=4.0)
    assert kept.networks["dit"] is source.networks["dit"]
    merged = with_loras(source, [LoRARequest(lora_file())])
    assert merged.networks.keys() == source.networks.keys()
    assert merged.networks["dit"].files[-1] == "lora.pt"
    name = "blocks.1.self_attn.v.weight"
    assert not np.array_equal(
        merged.networks["dit"].tensors[name], source.networks["dit"].tensors[name]
    )


def test_a_lora_that_is_partial_or_of_nothing_is_refused(wan_folder, lora_file):
    broken = lora_file(drop="base_model.model.blocks.0.ffn.0.lora_A.weight", name="broken.pt")
    with pytest.raises(ValueError, match=r"broken\.pt has base.*blocks\.0\.ffn\.0.* without the"):
        with_loras(find_source(wan_folder), [LoRARequest(broken)])
    with pytest.raises(ValueError, match="the source holds none"):
        with_loras(find_source(next(wan_folder.glob("*VAE.pth"))), [LoRARequest(lora_file())])
    with pytest.raises(ValueError, match="is no LoRA file"):
        with_loras(find_source(wan_folder), [LoRARequest(next(wan_folder.glob("*VAE.pth")))])


def test_a_partial_base_is_reported_with_a_lora_too(wan_folder, lora_file, random_tensors, sizes):
    tensors = random_tensors(dit_names(sizes["dit"]))
    lost = "blocks.1.self_attn.q.weight"
    write_torch(wan_folder / "partial.pt", {k: v for k, v in tensors.items() if k != lost})
    source = with_loras(find_source(wan_folder / "partial.pt"), [LoRARequest(lora_file())])
    assert report_on(source)["dit"].missing == (lost,)


def test_text_names_of_the_small_encoder_are_those_of_the_file(wan_folder, sizes):
    assert find_source(wan_folder).networks["text"].table == text_names(sizes["text"])
