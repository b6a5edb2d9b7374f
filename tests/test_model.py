"""Opening models: the preset, and checkpoint folders made by conversion."""

import dataclasses
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import shotstream_jax
from shotstream_jax import Defaults, Shot, Story, open_model, plan_for, stream_story
from shotstream_jax.checkpoints.integrity import write_checksums
from shotstream_jax.checkpoints.manager import save_checkpoint
from shotstream_jax.data.tokenizer import word_tokenizer
from shotstream_jax.model_config import CheckpointConfig, LoRAConfig
from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.lora import init_lora, merge
from shotstream_jax.models.text_encoder import init_text_encoder
from shotstream_jax.models.vae import init_vae
from shotstream_jax.presets import TINY

STORY = Story(
    title="t",
    global_caption="a star.",
    shots=(Shot(caption="it walks."),),
    defaults=Defaults(size=(32, 48), chunks=1),
)
DIT = dataclasses.replace(TINY.dit, dim=32, heads=2, layers=1, ffn_dim=32)
BUNDLED = pathlib.Path(shotstream_jax.__file__).parent / "bundled" / "tiny"
WORDS = ("star", "walks")
CHANNELS = TINY.vae.latent_channels


def latents(model):
    return np.concatenate([piece.latents for piece in stream_story(model, STORY)], axis=1)


@pytest.fixture(scope="module")
def networks():
    tokenizer = word_tokenizer(WORDS, DIT.text_tokens)
    text = dataclasses.replace(TINY.text, vocab=tokenizer.size)
    config = dataclasses.replace(TINY, dit=DIT, text=text)
    init = jax.jit(
        lambda key: {
            "dit": init_dit(key, DIT),
            "vae": init_vae(key, TINY.vae),
            "text": init_text_encoder(key, text),
        }
    )
    return config, init(jax.random.key(3)), tokenizer


@pytest.fixture
def store(networks, tmp_path):
    """Write a checkpoint folder of these networks, or of more than them."""
    config, params, tokenizer = networks

    def write(name, **more):
        networks = {"dit": config.dit, "vae": config.vae, "text": config.text}
        adapters = {key: adapter for key, (adapter, _) in more.items()}
        document = CheckpointConfig(
            networks=networks, rollout=config.rollout, weights="trained", **adapters
        )
        trees = {**params, **{key: tree for key, (_, tree) in more.items()}}
        tokenizer.save(tmp_path / "words")
        file = tmp_path / "words" / "tokenizer.json"
        save_checkpoint(tmp_path / name, trees, document, tokenizer=file)
        return tmp_path / name

    return write


def test_a_model_is_shown_in_a_line():
    """Kind: a notebook that shows a model fills with its arrays."""
    shown = repr(open_model("tiny"))
    assert re.fullmatch(
        r"Model\('tiny', trained weights, Networks\([\d.]+M parameters, float32, 1 device\)\)",
        shown,
    )


def test_a_shot_is_planned_for_a_model_or_its_networks():
    model = open_model("tiny")
    plan = plan_for(model, STORY, 0)
    assert plan == plan_for(model.networks, STORY, 0)
    assert plan.caption == "a star.shot0:it walks."


def test_the_preset_comes_with_trained_weights():
    model = open_model("tiny")
    assert model.weights == "trained"
    assert dataclasses.replace(model.config, vae=TINY.vae) == TINY
    assert model.digest == open_model("tiny").digest
    assert model.count_tokens("a star.") > 0


def test_a_checkpoint_films(store):
    model = open_model(store("checkpoint"))
    assert (model.weights, model.config.dit.dim) == ("trained", 32)
    assert latents(model).shape == (1, 3, *TINY.vae.latent_grid(32, 48), CHANNELS)


def test_dtype_is_cast_on_load(store):
    model = open_model(store("checkpoint"), dtype=jnp.bfloat16)
    kernels = jax.tree.leaves(model.networks.dit)
    assert {leaf.dtype for leaf in kernels} == {jnp.dtype(jnp.bfloat16)}
    assert np.isfinite(latents(model)).all()


def test_a_lora_beside_the_transformer_is_applied(store, networks):
    _, params, _ = networks
    lora = init_lora(jax.random.key(1), params["dit"], rank=2)
    lora = jax.tree.map(lambda x: x + 0.05, lora)
    plain = open_model(store("plain"))
    adapted = open_model(store("adapted", lora=(LoRAConfig(rank=2, alpha=4.0), lora)))
    merged = merge(params["dit"], lora, 2.0)
    jax.tree.map(np.testing.assert_allclose, adapted.networks.dit, merged)
    assert np.abs(latents(adapted) - latents(plain)).max() > 1e-3


def test_another_checkpoint_has_another_digest(store):
    assert open_model(store("one")).digest != open_model("tiny").digest


@pytest.mark.parametrize("name", ["wan-1.3b", "wan-14b"])
def test_presets_without_weights_say_how_to_get_them(name):
    with pytest.raises(ValueError, match="shotstream convert"):
        open_model(name)


def test_an_unknown_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_model(tmp_path / "none")


def test_missing_tokenizer_files_are_refused(store):
    folder = store("checkpoint")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        open_model(folder)


def test_a_truncated_checkpoint_is_refused(store):
    folder = store("checkpoint")
    largest = max((folder / "dit").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-10])
    with pytest.raises(ValueError, match="bytes"):
        open_model(folder)


@pytest.mark.parametrize(
    ("network", "size", "value"),
    [
        ("dit", "layers", 3),
        ("dit", "ffn_dim", 1280),
        ("vae", "base_channels", 16),
        ("text", "vocab", 9),
    ],
)
def test_sizes_that_are_not_those_of_the_weights_are_refused(store, network, size, value):
    path = store("checkpoint") / "config.json"
    document = json.loads(path.read_text())
    document["networks"][network][size] = value
    path.write_text(json.dumps(document))
    (path.parent / "files.json").unlink()
    write_checksums(path.parent)
    with pytest.raises(
        ValueError, match=r"the sizes in config\.json are not those of these weights"
    ):
        open_model(path.parent)


@pytest.mark.parametrize("name", ["config.json", "tokenizer/tokenizer.json"])
def test_a_flipped_bit_in_what_changes_numbers_is_refused(store, name):
    """Kind: a file that films another film under the same digest."""
    folder = store("checkpoint")
    content = (folder / name).read_text()
    changes = {"config.json": ('"shift": ', '"shift": 1'), "tokenizer/tokenizer.json": ("st", "ts")}
    before, after = changes[name]
    assert before in content
    (folder / name).write_text(content.replace(before, after, 1))
    with pytest.raises(ValueError, match=rf"{name} has (checksum|\d+ bytes)"):
        open_model(folder)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("networks", "dit", "text_tokens"), 1e9, "must be a whole number"),
        (("networks", "dit", "text_tokens"), 10**9, "is above 100000"),
        (("networks", "dit", "heads"), 0, "must be at least 1"),
        (("networks", "dit", "heads"), -1, "must be at least 1"),
        (("networks", "dit", "layers"), 10**9, "is above 1000"),
        (("networks", "dit", "ffn_dim"), True, "must be a whole number"),
        (("networks", "dit"), [], "must be an object"),
        (("networks", "dit"), {"dim": 999_936, "layers": 1000, "heads": 2}, "no ffn_dim"),
        (("networks",), [], "does not describe networks"),
        (("networks", "vae", "residual_blocks"), 10**6, "is above 100"),
        (("networks", "vae", "multipliers"), [1] * 5000, "."),
        (("networks", "vae", "base_channels"), "many", "must be a whole number"),
        (("networks", "text", "vocab"), 10**12, "is above 10000000"),
        (("networks", "text", "heads"), 0, "at least 1"),
        (("rollout", "steps"), [], "."),
        (("rollout", "steps"), [10**30], "."),
        (("rollout", "window", "local"), 10**9, "."),
        (("rollout", "window"), None, "must be an object"),
        (("rollout", "shift"), -1.0, "."),
        (("rollout",), [[]], "must be an object"),
        (("weights",), {}, "."),
        (("version",), [1], "version"),
    ],
)
def test_configs_of_absurd_sizes_or_types_are_refused_in_one_line(tmp_path, path, value, message):
    """Kind: config.json is validated before memory is asked for."""
    folder = tmp_path
    document = inner = json.loads((BUNDLED / "config.json").read_text())
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
        open_model(folder)


def test_configs_that_are_too_deep_too_long_or_too_large_in_all_are_refused(tmp_path):
    """Kind: config.json is validated before memory is asked for."""
    path = tmp_path / "config.json"
    document = json.loads((BUNDLED / "config.json").read_text())
    document["networks"]["dit"] |= {"dim": 999_936, "ffn_dim": 10**6, "layers": 1000, "heads": 2}
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"networks\.dit has 1\.0e\+16 parameters, above"):
        open_model(path.parent)
    path.write_text('{"a":' + "[" * 100_000)
    with pytest.raises(ValueError, match="is damaged"):
        open_model(path.parent)
    path.write_text(" " * (1 << 24) + "{}")
    with pytest.raises(ValueError, match="at most 16777216 are read"):
        open_model(path.parent)
    with pytest.raises(FileNotFoundError, match="is a file, so it has no config"):
        open_model(path)


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(ValueError, match="64 devices were asked for and there are"):
        open_model("tiny", devices=64)


def test_networks_that_do_not_fit_one_another_are_refused():
    message = f"{CHANNELS} latent channels and the autoencoder 4"
    narrow = dataclasses.replace(
        TINY.vae, latent_channels=4, latent_mean=(0.0,) * 4, latent_std=(1.0,) * 4
    )
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, vae=narrow)


def lora_file(path, layer=0, value=0.25):
    """Factors of one kernel whose product is `4 * value ** 2` everywhere, and a norm's shift."""
    module = f"diffusion_model.blocks.{layer}.self_attn.q"
    save_file(
        {
            f"{module}.lora_down.weight": np.full((4, DIT.dim), value, np.float32),
            f"{module}.lora_up.weight": np.full((DIT.dim, 4), value, np.float32),
            f"{module}.alpha": np.array(2, np.float32),
            f"diffusion_model.blocks.{layer}.norm3.diff": np.ones(DIT.dim, np.float32),
        },
        path,
    )
    return str(path)


def test_loras_are_added_when_a_model_is_opened(store, tmp_path):
    """Kind: a LoRA for one film, without a checkpoint of its own; several at once."""
    folder, one = store("plain"), lora_file(tmp_path / "one.safetensors")
    two = lora_file(tmp_path / "two.safetensors", value=0.5)
    plain = open_model(folder)
    model = open_model(folder, lora=[f"{one}:2", f"{two}:-1"])
    before, after = (m.networks.dit["blocks"] for m in (plain, model))
    change = after["self_attention"]["q"]["kernel"] - before["self_attention"]["q"]["kernel"]
    # Scale 2 / 4 each: 2 * .5 * .25 - 1 * .5 * 1.
    np.testing.assert_allclose(change, -0.25, atol=1e-6)
    shift = after["cross_norm"]["scale"] - before["cross_norm"]["scale"]
    np.testing.assert_allclose(shift, 1.0, atol=1e-6)
    np.testing.assert_array_equal(
        after["self_attention"]["k"]["kernel"], before["self_attention"]["k"]["kernel"]
    )
    assert [line.split(":")[0] for line in model.loras if "1 of 1 layers" in line] == [
        "LoRA one.safetensors",
        "LoRA two.safetensors",
    ]
    digests = {open_model(folder, lora=lora).digest for lora in ([], [one], [f"{one}:2"], [two])}
    assert len(digests) == 4
    assert plain.digest in digests
    with pytest.raises(ValueError, match=r"blocks\.1\.self_attn\.q.* does not have"):
        open_model(folder, lora=[lora_file(tmp_path / "other.safetensors", layer=1)])
