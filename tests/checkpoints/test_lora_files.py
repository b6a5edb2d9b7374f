"""LoRA files in every common layout add what their trainers meant, or are refused by name."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from shotstream_jax.checkpoints.lora_files import LoRA, merge_lora, read_lora
from shotstream_jax.checkpoints.lora_keys import parse_key
from shotstream_jax.checkpoints.lora_source import LoRARequest
from shotstream_jax.checkpoints.lora_trees import device_updates, kept_factors
from shotstream_jax.checkpoints.names_dit import diffusers_dit_names, dit_names
from shotstream_jax.checkpoints.param_trees import build_params
from shotstream_jax.checkpoints.torch_writer import write_torch
from shotstream_jax.models.lora import add_changes, merge
from tests.checkpoints.lora_layouts import (
    ALPHAS,
    LAYOUTS,
    RANKS,
    draw_factors,
    save_safetensors,
    write_lora,
)


@pytest.fixture
def config(sizes):
    return sizes["dit"]


@pytest.fixture
def official(config):
    return dit_names(config)


def merged_change(official, base, loras: list[LoRA]) -> dict[str, np.ndarray]:
    """What LoRAs add, by official name, of the tensors that change."""
    merged = merge_lora(official, base, loras)
    changes = {name: np.asarray(merged[name]) - base[name] for name in base}
    return {name: change for name, change in changes.items() if np.any(change)}


def assert_adds(official, base, lora: LoRA | list[LoRA], expected: dict[str, np.ndarray]) -> None:
    found = merged_change(official, base, lora if isinstance(lora, list) else [lora])
    assert found.keys() == expected.keys()
    for name, change in expected.items():
        np.testing.assert_allclose(found[name], change, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_alpha_and_rank_adds_the_truth(
    layout, alpha, config, official, random_tensors, tmp_path
):
    """Kind: names of another trainer, and alphas in another place, than one tool writes."""
    base = random_tensors(official)
    for number, ranks in enumerate(RANKS):
        folder = tmp_path / str(number)
        factors = draw_factors(official, ranks)
        made = write_lora(folder, factors, layout, alpha)
        if made is None:  # a layout that has no such place for an alpha
            continue
        path, asked, scales = made
        lora = read_lora(LoRARequest(path), config, asked)
        expected = {
            f"{module}.weight": scales[module] * b @ a for module, (a, b) in factors.items()
        }
        assert_adds(official, base, lora, expected)
        layers = {module.split(".")[1] for module in factors}
        assert f"{len(layers)} of {config.layers} layers, {len(factors)} kernels" in lora.summary


def test_the_truth_of_a_rank_stabilised_lora_is_another(tmp_path, config, official):
    """Kind: a setting that changes the scale is read."""
    factors = draw_factors(official, RANKS[0])
    made = write_lora(tmp_path / "it", factors, "peft", "rslora in adapter_config.json")
    assert made is not None
    path, _, scales = made
    assert set(scales.values()) == {8 / math.sqrt(4), 3 / math.sqrt(4)}
    assert (
        "alpha 3 to 8 (adapter_config.json), scale 1.5 to 4"
        in read_lora(LoRARequest(path), config).summary
    )


def one_module(a_shape=(4, 16), b_shape=(16, 4), **more: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    module = "blocks.1.self_attn.q"
    return {
        f"{module}.lora_A.weight": random.normal(size=a_shape).astype(np.float32),
        f"{module}.lora_B.weight": random.normal(size=b_shape).astype(np.float32),
        **more,
    }


def read(tmp_path: pathlib.Path, config, tensors, metadata=None, alpha=None, strength=1.0) -> LoRA:
    path = tmp_path / "lora.safetensors"
    save_safetensors(path, tensors, metadata)
    return read_lora(LoRARequest(path, strength), config, alpha)


ALPHA = {"blocks.1.self_attn.q.alpha": np.float32(8)}


@pytest.mark.parametrize(
    ("tensors", "metadata", "asked", "message"),
    [
        (ALPHA, {"ss_network_alpha": "4"}, None, r"8 \(.*q\.alpha\) and 4 \(metadata\)"),
        (ALPHA, {}, 4.0, r"8 \(.*q\.alpha\) and 4 \(--lora-alpha\)"),
        ({}, {"ss_network_alpha": "8", "lora_alpha": "4"}, None, "contradicts itself"),
        ({}, {"lora_alpha": "8", "lora_adapter_metadata": '{"lora_alpha": 4}'}, None, '"8" and 4'),
        ({}, {"ss_network_dim": "8"}, None, "says rank 8, and its factors have 4"),
        ({}, {"ss_network_alpha": "8", "lora_scale": "1"}, None, "tells scale 1 .* is 2"),
        ({}, {"ss_network_alpha": "eight"}, None, "must be a number above 0"),
        ({}, {"ss_network_alpha": "nan"}, None, "must be a number above 0"),
        ({}, {"alpha_pattern": "[" * 9000}, None, "is damaged"),
        ({}, {"rank_pattern": '{"(a+)+": 4}'}, None, "may take for ever"),
        ({}, {"use_dora": "true"}, None, "says DoRA"),
        ({}, {"use_rslora": "true"}, None, "tells no alpha"),
        ({"blocks.1.self_attn.q.alpha": np.float32(np.inf)}, {}, None, "above 0"),
        ({"blocks.1.self_attn.q.alpha": np.ones(3, np.float32)}, {}, None, "must be a number"),
        ({"blocks.1.self_attn.q.scale": np.float32(3)}, {"alpha": "4"}, None, "tells scale 3"),
    ],
)
def test_places_that_disagree_or_are_no_numbers_are_refused(
    tmp_path, config, tensors, metadata, asked, message
):
    """Kind: two places tell the strength of one module, and one of them must be wrong."""
    with pytest.raises(ValueError, match=message):
        read(tmp_path, config, one_module(**tensors), metadata, asked)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "LOHA"}, "only LORA"),
        ({"use_dora": True}, "says DoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base as well"),
        ({"r": 8}, r"rank 8 for blocks.1.self_attn.q and its factors in .* have 4"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"lora_alpha": 0}, "above 0"),
        ({"lora_alpha": True}, "above 0"),
        ({"rank_pattern": [4]}, "must be an object"),
        ({"alpha_pattern": {"(": 4}}, "has no pattern"),
        ({"use_rslora": "perhaps"}, "true or false"),
    ],
)
def test_settings_that_are_not_implemented_are_refused(tmp_path, config, settings, message):
    """Kind: a setting of peft's that changes numbers is honoured or refused, never skipped."""
    save_safetensors(tmp_path / "adapter_model.safetensors", one_module())
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8} | settings
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=message):
        read_lora(LoRARequest(tmp_path), config)


HALF = {"blocks.1.ffn.0.lora_B.weight": np.zeros((24, 4), np.float32)}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (HALF, r"blocks\.1\.ffn\.0\.lora_B\.weight without the other factor"),
        ({"blocks.0.ffn.0.alpha": np.float32(1)}, r"blocks\.0\.ffn\.0\.alpha without factors"),
        ({"blocks.1.self_attn.q.lora_magnitude_vector": np.ones(16)}, "holds DoRA"),
        ({"blocks.1.self_attn.q.dora_scale": np.ones((16, 1))}, "holds DoRA"),
        ({"blocks.1.self_attn.q.hada_w1_a": np.ones((16, 4))}, "holds LoHa"),
        ({"blocks.1.self_attn.q.lokr_w1": np.ones((4, 4))}, "holds LoKr"),
        ({"blocks.9.ffn.0.diff_b": np.ones(24)}, r"adapts blocks\.9\.ffn\.0\.diff_b, which"),
        ({"blocks.0.cross_attn.k_img.diff_b": np.ones(16)}, "does not have: 1 of 3 tensors"),
        ({"head.head.weight": np.ones((8, 16))}, "is no LoRA file: of 3 tensors 1 are not"),
        ({"blocks.0.norm3.diff": np.ones(15)}, r"shape \[15\], and it has \[16\]"),
        ({"blocks.0.norm3.diff": np.ones(16, np.int8)}, r"norm3\.diff as int8"),
        ({"blocks.1.self_attn.q.diff": np.ones((16, 16))}, "by factors and by a difference"),
        ({"critic.blocks.0.norm3.diff": np.ones(16)}, "adapts critic"),
        ({"text_encoder.blocks.0.norm3.diff": np.ones(16)}, "adapts text_encoder"),
        ({"blocks.0.self_attn.norm1.diff_b": np.ones(16)}, "does not have"),
        ({"x.blocks.1.self_attn.q.lora_A.weight": np.ones((4, 16))}, "same factor twice"),
        ({"blocks.0.self_attn.q.lora_A.one.weight": np.ones((4, 16))} | {
            "blocks.0.self_attn.q.lora_B.two.weight": np.ones((16, 4))}, "adapters one, two"),
    ],
)  # fmt: skip
def test_what_has_no_place_is_refused_by_name(tmp_path, config, more, message):
    """Kind: a tensor that is not understood would be a change that is lost."""
    with pytest.raises(ValueError, match=message):
        read(tmp_path, config, one_module(**more))


@pytest.mark.parametrize(
    ("a", "b"),
    [((4, 24), (16, 4)), ((4, 16), (24, 4)), ((4, 16), (16, 2)), ((16, 4), (4, 16)), ((4,), (16,))],
)
def test_shapes_that_fit_nothing_are_refused_with_both(tmp_path, config, a, b):
    """Kind: a LoRA of a transformer of another size."""
    with pytest.raises(ValueError, match=r"blocks\.1\.self_attn\.q"):
        read(tmp_path, config, one_module(a, b))
    with pytest.raises(ValueError, match=r"rank|shape"):
        read(tmp_path, config, one_module((0, 16), (16, 0)))


def test_differences_reach_biases_norms_and_tables(tmp_path, config, official, random_tensors):
    """Kind: a file changes more than kernels."""
    random, base = np.random.default_rng(1), random_tensors(official)
    shapes = {
        "blocks.0.norm3.diff": ("blocks.0.norm3.weight", (16,)),
        "blocks.0.norm3.diff_b": ("blocks.0.norm3.bias", (16,)),
        "blocks.2.ffn.0.diff_b": ("blocks.2.ffn.0.bias", (24,)),
        "blocks.1.self_attn.norm_q.diff": ("blocks.1.self_attn.norm_q.weight", (16,)),
        "blocks.1.diff_m": ("blocks.1.modulation", (1, 6, 16)),
        "head.head.diff": ("head.head.weight", (8, 16)),
        "patch_embedding.diff": ("patch_embedding.weight", (16, 2, 1, 2, 2)),
        "text_embedding.0.diff": ("text_embedding.0.weight", (16, 12)),
    }
    files = {name: random.normal(size=shape).astype(np.float32) for name, (_, shape) in
             shapes.items()}  # fmt: skip
    kernel = one_module(**{"blocks.1.self_attn.q.lora_B.bias": np.ones(16, np.float32)}, **ALPHA)
    lora = read(tmp_path, config, files | kernel, strength=0.5)
    product = kernel["blocks.1.self_attn.q.lora_B.weight"] @ kernel[
        "blocks.1.self_attn.q.lora_A.weight"]  # fmt: skip
    expected = {official: 0.5 * files[name] for name, (official, _) in shapes.items()}
    expected["blocks.1.self_attn.q.weight"] = product  # 0.5 * 8 / 4
    expected["blocks.1.self_attn.q.bias"] = np.ones(16)
    assert_adds(official, base, lora, expected)
    with pytest.raises(ValueError, match="cannot be kept beside"):
        kept_factors(official, [lora])


def test_a_convolution_of_the_patch_embedding_can_be_adapted(
    tmp_path, config, official, random_tensors
):
    """Kind: factors outside blocks."""
    random = np.random.default_rng(2)
    a = random.normal(size=(3, 2, 1, 2, 2)).astype(np.float32)
    b = random.normal(size=(16, 3, 1, 1, 1)).astype(np.float32)
    tensors = {"patch_embedding.lora_A.weight": a, "patch_embedding.lora_B.weight": b}
    lora = read(tmp_path, config, tensors)
    change = np.tensordot(b[:, :, 0, 0, 0], a, 1)
    assert_adds(official, random_tensors(official), lora, {"patch_embedding.weight": change})


def test_devices_add_what_files_add(tmp_path, config, official, random_tensors):
    """Kind: a LoRA counts alike on the way (convert) and when filming, in any mixture."""
    base = random_tensors(official)
    first = read(
        tmp_path, config, one_module(**{"blocks.0.norm3.diff": np.ones(16, np.float32)}), alpha=8.0
    )
    tensors = {
        f"blocks.{layer}.ffn.0.lora_{half}.weight": np.full(shape, 0.5, np.float32)
        for layer, rank in ((0, 2), (2, 5))
        for half, shape in (("A", (rank, 16)), ("B", (24, rank)))
    }
    (tmp_path / "two").mkdir()
    second = read(tmp_path / "two", config, tensors | one_module((2, 16), (16, 2)), strength=-0.3)
    factors, changes = device_updates(official, [first, second])
    params = jax.tree.map(jnp.asarray, build_params(official, base))
    on_device = jax.tree.map(jnp.asarray, (factors, changes))
    ours = add_changes(merge(params, on_device[0], 1.0), on_device[1])
    files = build_params(official, merge_lora(official, base, [first, second]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, files)
    assert changes.keys() == {"blocks"}
    # Layer 1 of ffn.up is named by neither: its zeros change nothing.
    np.testing.assert_array_equal(
        ours["blocks"]["ffn"]["up"]["kernel"][1], params["blocks"]["ffn"]["up"]["kernel"][1]
    )


def test_kept_factors_are_one_network_of_all_loras(tmp_path, config, official, random_tensors):
    """Kind: several LoRAs, some layers only, kept apart."""
    base = random_tensors(official)
    first = read(tmp_path, config, one_module(), alpha=8.0)
    table, tensors, adapters = kept_factors(official, [first])
    assert (adapters.rank, adapters.alpha) == (4, 8.0)
    assert len(table) == 2 * config.layers
    (tmp_path / "two").mkdir()
    second = read(tmp_path / "two", config, one_module((2, 16), (16, 2)), strength=0.5)
    table, tensors, adapters = kept_factors(official, [first, second])
    assert (adapters.rank, adapters.scale) == (6, 1.0)
    params = jax.tree.map(jnp.asarray, build_params(official, base))
    ours = merge(params, jax.tree.map(jnp.asarray, build_params(table, tensors)), adapters.scale)
    files = build_params(official, merge_lora(official, base, [first, second]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, files)


def test_a_base_in_another_layout_is_merged_alike(random_tensors, official, config, tmp_path):
    lora = read(tmp_path, config, one_module())
    diffusers = diffusers_dit_names(config)
    base = random_tensors(official)
    renamed = dict(zip(diffusers, base.values(), strict=True))
    one = build_params(official, merge_lora(official, base, [lora]))
    other = build_params(diffusers, merge_lora(diffusers, renamed, [lora]))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_products_are_rounded_once(tmp_path, config, official, random_tensors):
    base = random_tensors(official)
    name = "blocks.1.self_attn.q.weight"
    base[name] = np.ones((16, 16), ml_dtypes.bfloat16)
    tensors = one_module() | {
        "blocks.1.self_attn.q.lora_A.weight": np.full((4, 16), 2.0**-10, np.float32),
        "blocks.1.self_attn.q.lora_B.weight": np.ones((16, 4), np.float32),
    }
    # Two times four steps of 1/1024 are one of bfloat16's steps above 1; alone they round away.
    lora = read(tmp_path, config, tensors)
    merged = np.asarray(merge_lora(official, base, [lora, lora])[name])
    assert merged.dtype == ml_dtypes.bfloat16
    assert merged[0, 0] == 1 + 2.0**-7


def test_factors_that_are_not_finite_are_refused_where_they_count(
    tmp_path, config, official, random_tensors
):
    """Kind: non-finite values are refused by the name of the tensor."""
    tensors = one_module()
    tensors["blocks.1.self_attn.q.lora_A.weight"][0, 0] = np.nan
    lora = read(tmp_path, config, tensors)
    merged = merge_lora(official, random_tensors(official), [lora])
    with pytest.raises(ValueError, match=r"change of blocks\.1\.self_attn\.q\.weight is not fin"):
        np.asarray(merged["blocks.1.self_attn.q.weight"])
    with pytest.raises(ValueError, match=r"change of blocks\.self_attention\.q\.kernel is not fin"):
        device_updates(official, [lora])


def test_a_base_without_an_adapted_kernel_is_refused(random_tensors, official, config, tmp_path):
    lora = read(tmp_path, config, one_module())
    lacking = {name: one for name, one in official.items() if name != "blocks.1.self_attn.q.weight"}
    with pytest.raises(ValueError, match=r"adapts blocks\.self_attention\.q\.kernel of layer 1"):
        merge_lora(lacking, random_tensors(official), [lora])


def test_critics_factors_are_left_out_and_said(tmp_path, config, official, random_tensors):
    """Kind: a training file holds factors of several networks."""
    tensors = {
        f"{section}.{name}": values
        for section in ("generator_lora", "critic_lora")
        for name, values in one_module().items()
    }
    write_torch(tmp_path / "train.pt", tensors)
    lora = read_lora(LoRARequest(tmp_path / "train.pt"), config)
    assert "generator_lora is read, and not critic_lora" in lora.notes
    assert len(lora.updates) == 1


def test_folders_are_opened_or_told_apart(tmp_path, config):
    """Kind: a folder where a file was expected; messages tell the truth about what is there."""
    with pytest.raises(FileNotFoundError, match="There is no LoRA"):
        read_lora(LoRARequest(tmp_path / "nothing"), config)
    with pytest.raises(FileNotFoundError, match="is a folder without a LoRA"):
        read_lora(LoRARequest(tmp_path), config)
    save_safetensors(tmp_path / "step_1.safetensors", one_module())
    assert len(read_lora(LoRARequest(tmp_path), config).updates) == 1
    save_safetensors(tmp_path / "step_2.safetensors", one_module())
    with pytest.raises(ValueError, match=r"holds 2 LoRAs \(step_1\.safetensors, step_2"):
        read_lora(LoRARequest(tmp_path), config)
    save_safetensors(tmp_path / "style" / "adapter_model.safetensors", one_module())
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    (tmp_path / "style" / "adapter_config.json").write_text(json.dumps(settings))
    lora = read_lora(LoRARequest(tmp_path), config)
    assert "scale 2" in lora.summary
    # The settings beside peft's own file are not those of another file in its folder.
    save_safetensors(tmp_path / "style" / "other.safetensors", one_module())
    other = read_lora(LoRARequest(tmp_path / "style" / "other.safetensors"), config)
    assert "scale 1" in other.summary
    assert any("belongs to another file" in note for note in other.notes)


@pytest.mark.parametrize(
    ("text", "path", "strength"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:0.5", "a.safetensors", 0.5),
        ("dir/a:b.pt:-1", "dir/a:b.pt", -1.0),
    ],
)
def test_a_strength_follows_the_last_colon(text, path, strength):
    assert LoRARequest.parse(text) == LoRARequest(pathlib.Path(path), strength)


@pytest.mark.parametrize("text", ["a.pt:much", "a.pt:", "a.pt:nan", "a.pt:inf"])
def test_a_strength_that_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match="FILE:STRENGTH"):
        LoRARequest.parse(text)


def test_a_colon_in_a_name_that_exists_is_no_strength(tmp_path):
    path = tmp_path / "a:1"
    path.write_text("")
    assert LoRARequest.parse(str(path)) == LoRARequest(path)


def test_long_names_take_linear_time(config, tmp_path):
    """Kind: parsing in linear time."""
    assert parse_key("a." * 200_000 + "lora_A.weight") is not None
    with pytest.raises(ValueError, match="does not have"):
        read(tmp_path, config, {"x_" * 200_000 + ".diff": np.ones(1, np.float32)})


@pytest.mark.slow
@pytest.mark.parametrize("alpha", ["adapter_config.json", "rslora in adapter_config.json"])
@pytest.mark.parametrize("ranks", RANKS)
def test_peft_merges_the_same(tmp_path, alpha, ranks, config, official, random_tensors):
    """Kind: the truth of peft's layout is what peft itself makes of it."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    base = random_tensors(official)
    model = torch_modules(torch, base)
    factors = draw_factors(official, ranks)
    made = write_lora(tmp_path / "it", factors, "peft", alpha)
    assert made is not None
    merged = peft.PeftModel.from_pretrained(model, str(made[0])).merge_and_unload().state_dict()
    ours = merge_lora(official, base, [read_lora(LoRARequest(made[0]), config)])
    for module in factors:
        name = f"{module}.weight"
        np.testing.assert_allclose(ours[name], merged[name].numpy(), rtol=1e-5, atol=1e-5)


def torch_modules(torch, base):
    """Nested torch modules with a linear layer for every matrix of the base."""
    root = torch.nn.Module()
    for name, values in base.items():
        *path, last = name.removesuffix(".weight").split(".")
        if not name.endswith(".weight") or values.ndim != 2:
            continue
        inner = root
        for part in path:
            if not hasattr(inner, part):
                inner.add_module(part, torch.nn.Module())
            inner = getattr(inner, part)
        linear = torch.nn.Linear(values.shape[1], values.shape[0], bias=False)
        linear.weight.data = torch.from_numpy(values.copy())
        inner.add_module(last, linear)
    return root
