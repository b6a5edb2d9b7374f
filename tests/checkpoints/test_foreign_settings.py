"""Settings of other programs that change numbers are honoured, or refused by name."""

import json

import pytest

from shotstream_jax.checkpoints.names_dit import dit_names
from shotstream_jax.checkpoints.official import import_source
from shotstream_jax.checkpoints.safetensors_files import write_safetensors
from shotstream_jax.checkpoints.weight_sources import find_source
from shotstream_jax.models.configs import DiTConfig

# As the released files have them, but for sizes.
WAN = {
    "_class_name": "WanModel",
    "_diffusers_version": "0.30.0",
    "dim": 16,
    "ffn_dim": 24,
    "freq_dim": 8,
    "num_heads": 2,
    "num_layers": 3,
    "in_dim": 2,
    "out_dim": 2,
    "text_dim": 12,
    "text_len": 7,
    "patch_size": [1, 2, 2],
    "model_type": "t2v",
    "window_size": [-1, -1],
    "qk_norm": True,
    "cross_attn_norm": True,
    "eps": 1e-06,
}
TRANSFORMER = {
    "_class_name": "WanTransformer3DModel",
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_layers": 3,
    "ffn_dim": 24,
    "freq_dim": 8,
    "in_channels": 2,
    "out_channels": 2,
    "patch_size": [1, 2, 2],
    "text_dim": 12,
    "qk_norm": "rms_norm_across_heads",
    "cross_attn_norm": True,
    "eps": 1e-06,
    "rope_max_seq_len": 1024,
    "added_kv_proj_dim": None,
    "image_dim": None,
}
AUTOENCODER = {
    "_class_name": "AutoencoderKLWan",
    "base_dim": 4,
    "z_dim": 2,
    "dim_mult": [1, 2],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [True],
    "dropout": 0.0,
    "is_residual": False,
    "patch_size": None,
    "latents_mean": [0.5, -0.5],
    "latents_std": [1.0, 2.0],
    "decoder_base_dim": None,
    "in_channels": 3,
    "out_channels": 3,
    "scale_factor_spatial": 2,
    "clip_output": False,
    "scale_factor_temporal": 2,
}
TEXT = {
    "architectures": ["UMT5EncoderModel"],
    "model_type": "umt5",
    "vocab_size": 11,
    "d_model": 12,
    "d_ff": 20,
    "d_kv": 4,
    "num_heads": 2,
    "num_layers": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 64,
    "feed_forward_proj": "gated-gelu",
    "dense_act_fn": "gelu_new",
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-06,
    "dropout_rate": 0.1,
    "torch_dtype": "bfloat16",
}
PLACES = {"transformer": TRANSFORMER, "vae": AUTOENCODER, "text_encoder": TEXT}


@pytest.fixture
def wan(wan_folder):
    def write(**changes):
        (wan_folder / "config.json").write_text(json.dumps(WAN | changes))
        return wan_folder

    return write


@pytest.fixture
def diffusers(diffusers_folder):
    def write(place="", **changes):
        for name, settings in PLACES.items():
            content = settings | (changes if name == place else {})
            (diffusers_folder / name / "config.json").write_text(json.dumps(content))
        return diffusers_folder

    return write


def test_settings_as_released_are_all_known(wan, diffusers):
    for folder in (wan(latents_mean=[0.5, -0.5], latents_std=[1.0, 2.0]), diffusers()):
        assert {part.notes for part in find_source(folder).networks.values()} == {()}


def test_the_largest_distance_of_the_text_encoder_is_honoured(diffusers):
    assert find_source(diffusers()).networks["text"].config.max_distance == 64


@pytest.mark.parametrize(
    ("name", "value", "supported"),
    [
        ("eps", 1e-5, "1e-06 is implemented here"),
        ("qk_norm", False, "true is implemented"),
        ("cross_attn_norm", 0, "true is implemented"),
        ("window_size", [9, 9], "[-1, -1] is implemented"),
        ("model_type", "i2v", '"t2v" is implemented'),
        ("patch_size", [2, 2, 2], "[1, 2, 2] the weights have"),
        ("num_layers", 4, "3 the weights have"),
        ("out_dim", 4, "2 the weights have"),
        ("freq_dim", 16, "8 the weights have"),
    ],
)
def test_what_another_wan_folder_says_is_refused(wan, name, value, supported):
    folder = wan(latents_mean=[0.5, -0.5], latents_std=[1.0, 2.0], **{name: value})
    with pytest.raises(ValueError, match=r"config\.json has") as refused:
        find_source(folder)
    said = str(refused.value)
    assert f"{folder / 'config.json'} has {name} {json.dumps(value)} and {supported}" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("place", "name", "value", "supported"),
    [
        ("transformer", "eps", 1e-5, "1e-06 is implemented here"),
        ("transformer", "qk_norm", "rms_norm", '"rms_norm_across_heads" is implemented'),
        ("transformer", "rope_max_seq_len", 2048, "1024 is implemented"),
        ("transformer", "image_dim", 1280, "null is implemented"),
        ("transformer", "in_channels", 4, "2 the weights have"),
        ("vae", "is_residual", True, "false is implemented"),
        ("vae", "attn_scales", [0.5], "[] is implemented"),
        ("vae", "patch_size", 2, "1 or null the weights have"),
        ("vae", "decoder_base_dim", 8, "null or 4 the weights have"),
        ("vae", "temperal_downsample", [False], "[true] the weights have"),
        ("text_encoder", "model_type", "t5", '"umt5" is implemented'),
        ("text_encoder", "dense_act_fn", "relu", '"gelu_new" is implemented'),
        ("text_encoder", "feed_forward_proj", "gated-silu", '"gated-gelu" is implemented'),
        ("text_encoder", "layer_norm_epsilon", 1e-5, "1e-06 is implemented"),
        ("text_encoder", "relative_attention_num_buckets", 16, "8 the weights have"),
        ("text_encoder", "d_kv", 8, "4 the weights have"),
    ],
)
def test_what_another_diffusers_folder_says_is_refused(diffusers, place, name, value, supported):
    folder = diffusers(place, **{name: value})
    with pytest.raises(ValueError, match=f"has {name} ") as refused:
        find_source(folder)
    path = folder / place / "config.json"
    assert f"{path} has {name} {json.dumps(value)} and {supported}" in str(refused.value)


def test_settings_that_are_not_known_are_listed(diffusers, tmp_path):
    source = find_source(diffusers("transformer", sparse=True, experts=4))
    [note] = source.networks["dit"].notes
    assert note == "config.json has settings that are not known and not read: experts, sparse"
    import_source(source, tmp_path / "film")
    stored = json.loads((tmp_path / "film" / "config.json").read_text())
    assert stored["source"]["dit"]["notes"] == [note]
    assert stored["source"]["vae"]["notes"] == []


def test_settings_of_a_base_of_another_size_are_not_read(wan, tmp_path, random_tensors):
    wide = DiTConfig(
        dim=128,
        layers=1,
        heads=1,
        ffn_dim=8,
        freq_dim=8,
        text_dim=12,
        latent_channels=2,
    )
    write_safetensors(tmp_path / "wide.safetensors", random_tensors(dit_names(wide)))
    base = wan(latents_mean=[0.5, -0.5], latents_std=[1.0, 2.0])
    dit = find_source(tmp_path / "wide.safetensors", base=base).networks["dit"]
    assert (dit.config.heads, dit.config.text_tokens) == (1, 7)
    [note] = dit.notes
    assert "describes a transformer 16 wide and the weights are 128 wide" in note
    [note] = find_source(tmp_path / "wide.safetensors").networks["dit"].notes
    assert "1 heads of 128 channels and 512 text tokens are assumed" in note
