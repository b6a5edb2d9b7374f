"""Folders as they are published: variants, shards, torch files; what is there is told truly."""

import dataclasses
import json

import pytest

from shotstream_jax.checkpoints.formats import OFFICIAL_FORMATS
from shotstream_jax.checkpoints.official import refuse_misfits, report_on
from shotstream_jax.checkpoints.torch_writer import write_torch
from shotstream_jax.checkpoints.weight_sources import find_source
from tests.checkpoints.lora_layouts import save_safetensors

VAE = "vae/diffusion_pytorch_model"


def whole(source):
    return all(report.whole for report in report_on(source).values())


def test_a_sharded_autoencoder_is_read(diffusers_folder, shards):
    """Kind: any network may be in shards, as safetensors or as torch files."""
    source = find_source(diffusers_folder)
    file = diffusers_folder / f"{VAE}.safetensors"
    tensors = source.networks["vae"].tensors
    shards(file.parent, "sharded", tensors)
    file.unlink()
    for shard in file.parent.glob("sharded*"):
        name = shard.name.replace("sharded", "diffusion_pytorch_model")
        shard.write_bytes(shard.read_bytes().replace(b"sharded-", b"diffusion_pytorch_model-"))
        shard.rename(shard.with_name(name))
    assert whole(find_source(diffusers_folder))


def test_a_variant_is_found_said_and_chosen(diffusers_folder):
    """Kind: `variant` of diffusers."""
    plain = diffusers_folder / f"{VAE}.safetensors"
    plain.rename(plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
    source = find_source(diffusers_folder)
    assert whole(source)
    assert source.networks["vae"].notes[0].endswith("model.fp16.safetensors is read")
    text = diffusers_folder / "text_encoder"
    index = json.loads((text / "model.safetensors.index.json").read_text())
    (text / "model.safetensors.index.bf16.json").write_text(json.dumps(index))
    (text / "model.safetensors.index.json").rename(text / "model.safetensors.index.fp16.json")
    with pytest.raises(ValueError, match=r"text_encoder has the variants bf16, fp16; add --var"):
        find_source(diffusers_folder)
    assert whole(find_source(diffusers_folder, variant="fp16"))
    with pytest.raises(ValueError, match=r"no variant 'fp8'; it has bf16, fp16"):
        find_source(diffusers_folder, variant="fp8")


def test_torch_files_are_read_where_safetensors_are_missing(diffusers_folder):
    """Kind: `.bin` folders."""
    tensors = find_source(diffusers_folder).networks
    text = diffusers_folder / "text_encoder"
    write_torch(text / "pytorch_model.bin", tensors["text"].tensors)
    write_torch(diffusers_folder / f"{VAE}.bin", tensors["vae"].tensors)
    source = find_source(diffusers_folder)
    assert "is read, not diffusion_pytorch_model.bin" in source.networks["vae"].notes[0]
    (diffusers_folder / f"{VAE}.safetensors").unlink()
    for part in text.glob("model*"):
        part.unlink()
    assert whole(find_source(diffusers_folder))


def test_wan_folders_may_hold_safetensors(wan_folder):
    """Kind: a repackaged Wan2.1 folder."""
    source = find_source(wan_folder)
    for name, file in (("vae", "Wan2.1_VAE"), ("text", "models_t5_umt5-xxl-enc-bf16")):
        save_safetensors(wan_folder / f"{file}.safetensors", source.networks[name].tensors)
        (wan_folder / f"{file}.pth").unlink()
    assert whole(find_source(wan_folder))


def test_messages_say_what_is_there(wan_folder, tmp_path, lora_file):
    """Kind: "is not there" of what is there, and is something else."""
    vae = wan_folder / "Wan2.1_VAE.pth"
    with pytest.raises(NotADirectoryError, match=r"Wan2\.1_VAE\.pth is a file and not a folder"):
        find_source(wan_folder / "diffusion_pytorch_model.safetensors", base=vae)
    peft = tmp_path / "peft"
    peft.mkdir()
    (peft / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"peft is a folder of peft's with a LoRA; .* --lora"):
        find_source(peft)
    (tmp_path / "quantised").mkdir()
    (tmp_path / "quantised" / "wan.gguf").write_bytes(b"GGUF")
    for path in (tmp_path / "quantised", tmp_path / "quantised" / "wan.gguf"):
        with pytest.raises(ValueError, match=r"GGUF files?, which .* fetch the safetensors"):
            find_source(path)
    (tmp_path / "pointer.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        find_source(tmp_path / "pointer.safetensors")
    with pytest.raises(ValueError, match="--section ema is a branch of a file"):
        find_source(wan_folder, section="ema")
    vae.write_bytes((wan_folder / "models_t5_umt5-xxl-enc-bf16.pth").read_bytes())
    with pytest.raises(ValueError, match=r"holds a Wan2\.1 text encoder, where the folder's vae"):
        find_source(wan_folder)


@pytest.mark.parametrize(
    ("network", "message"),
    [("text", "reads text 12 wide and .* writes 8"), ("vae", "2 latent channels and .* 4;")],
)
def test_networks_that_do_not_fit_are_refused_at_convert(
    wan_folder, sizes, random_tensors, network, message
):
    """Kind: files of two releases in one folder; both widths are named."""
    changes = {"text": {"dim": 8}, "vae": {"latent_channels": 4, "latent_mean": (0.0,) * 4,
               "latent_std": (1.0,) * 4}}  # fmt: skip
    other = dataclasses.replace(sizes[network], **changes[network])
    file = next(wan_folder.glob({"vae": "*VAE.pth", "text": "models_t5*"}[network]))
    write_torch(file, random_tensors(OFFICIAL_FORMATS[network].names(other)))
    if network == "vae":
        settings = json.loads((wan_folder / "config.json").read_text())
        settings |= {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
        (wan_folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=message):
        refuse_misfits(find_source(wan_folder))


def test_a_width_that_settings_contradict_is_named_with_both(wan_folder):
    """Kind: refused width mismatches name both values."""
    (wan_folder / "config.json").write_text(json.dumps({"dim": 96, "num_heads": 2}))
    with pytest.raises(ValueError, match=r"transformer 96 wide and the weights are 16"):
        find_source(wan_folder)
