"""LoRA factors are merged into whatever layout holds the kernel, or stacked into our tree."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from shotstream_jax.checkpoints.lora_files import (
    LoRA,
    adapted_kernels,
    lora_names,
    merge_lora,
    merged_kernel,
    read_lora,
)
from shotstream_jax.checkpoints.names_dit import diffusers_dit_names, dit_names
from shotstream_jax.checkpoints.param_trees import build_params
from shotstream_jax.checkpoints.report import compare
from shotstream_jax.checkpoints.torch_weights import open_weights
from shotstream_jax.models.lora import merge


@pytest.fixture
def official(sizes):
    return dit_names(sizes["dit"])


@pytest.fixture
def lora(lora_file) -> LoRA:
    path = lora_file()
    return read_lora(open_weights(path, "generator_lora"), path, alpha=6.0)


@pytest.fixture
def names(official, lora):
    return lora_names(official, adapted_kernels(official, lora), lora.rank)


def test_rank_is_in_the_shapes_and_alpha_is_the_rank_unless_told(lora, lora_file):
    path = lora_file()
    assert (lora.rank, lora.alpha, lora.scale) == (2, 6.0, 3.0)
    assert read_lora(open_weights(path, "generator_lora"), path).scale == 1.0


def test_every_linear_layer_of_a_block_is_found(lora, names, sizes):
    assert len(names) == 2 * 10 * sizes["dit"].layers
    assert compare(names, lora.tensors).whole


def test_adapter_names_are_dropped(lora):
    named = {
        f"base_model.model.{name.replace('.weight', '.default.weight')}": tensor
        for name, tensor in lora.tensors.items()
    }
    assert read_lora(named, "x").tensors.keys() == lora.tensors.keys()


def test_the_tree_merges_as_the_file_does(random_tensors, official, lora, names):
    base = random_tensors(official)
    ours = merge(
        jax.tree.map(jnp.asarray, build_params(official, base)),
        jax.tree.map(jnp.asarray, build_params(names, lora.tensors)),
        lora.scale,
    )
    merged = build_params(official, merge_lora(official, base, names, lora))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, merged)


def test_only_adapted_kernels_change(random_tensors, official, lora, names):
    base = random_tensors(official)
    merged = merge_lora(official, base, names, lora)
    changed = {name for name in base if not np.array_equal(merged[name], base[name])}
    assert changed == {
        n for n, mapping in official.items() if mapping.path in adapted_kernels(official, lora)
    }
    kernel = "blocks.2.ffn.0"
    a, b = (np.asarray(lora.tensors[f"{kernel}.lora_{half}.weight"]) for half in "AB")
    np.testing.assert_allclose(
        merged[f"{kernel}.weight"], base[f"{kernel}.weight"] + 3 * b @ a, rtol=1e-5, atol=1e-5
    )


def test_a_base_in_another_layout_is_merged_alike(random_tensors, official, lora, names, sizes):
    diffusers = diffusers_dit_names(sizes["dit"])
    base = random_tensors(official)
    renamed = dict(zip(diffusers, base.values(), strict=True))
    one = build_params(official, merge_lora(official, base, names, lora))
    other = build_params(diffusers, merge_lora(diffusers, renamed, names, lora))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_products_are_rounded_once():
    kernel = np.full((1, 1), 1.0, ml_dtypes.bfloat16)
    a, b = np.full((4, 1), 2.0**-10, np.float32), np.ones((1, 4), np.float32)
    # Four steps of 1/1024 are half of bfloat16's step above 1; alone, each would round away.
    assert merged_kernel(kernel, a, b, 2.0)[0, 0] == 1 + 2.0**-7
    assert merged_kernel(kernel, a, b, 2.0).dtype == ml_dtypes.bfloat16


def test_a_subset_of_modules_is_a_lora_too(lora, official):
    subset = {n: t for n, t in lora.tensors.items() if ".self_attn.q." in n}
    few = LoRA(subset, lora.rank, lora.alpha)
    names = lora_names(official, adapted_kernels(official, few), few.rank)
    assert names.keys() == subset.keys()
    assert list(build_params(names, subset)["blocks"]) == ["self_attention"]


def test_half_a_pair_is_missed(lora, official):
    half = {n: t for n, t in lora.tensors.items() if n != "blocks.1.ffn.2.lora_B.weight"}
    names = lora_names(
        official, adapted_kernels(official, LoRA(half, lora.rank, lora.alpha)), lora.rank
    )
    assert compare(names, half).missing == ("blocks.1.ffn.2.lora_B.weight",)


def test_factors_of_modules_that_are_not_there_are_unexpected(lora, official):
    stray = lora.tensors | {"blocks.9.ffn.2.lora_A.weight": np.zeros((2, 24), np.float32)}
    names = lora_names(
        official, adapted_kernels(official, LoRA(stray, lora.rank, lora.alpha)), lora.rank
    )
    assert compare(names, stray).unexpected == ("blocks.9.ffn.2.lora_A.weight",)


def test_a_base_without_an_adapted_kernel_is_refused(random_tensors, official, lora, names):
    base = random_tensors(official)
    lacking = {
        name: mapping for name, mapping in official.items() if name != "blocks.2.ffn.0.weight"
    }
    with pytest.raises(ValueError, match=r"adapts blocks\.ffn\.up\.kernel of layer 2"):
        merge_lora(lacking, base, names, lora)


def test_other_files_and_mixed_ranks_are_refused(lora, random_tensors, official):
    with pytest.raises(ValueError, match=r"base\.pt is no LoRA file: of 96 tensors 96 are not"):
        read_lora(random_tensors(official), "base.pt")
    with pytest.raises(ValueError, match="no LoRA file: of 0 tensors"):
        read_lora({}, "x")
    wide = {"blocks.0.ffn.0.lora_A.weight": np.zeros((4, 16), np.float32)}
    with pytest.raises(ValueError, match=r"ranks \[2, 4\]"):
        read_lora(lora.tensors | wide, "x")
    with pytest.raises(ValueError, match=r"ranks \[0\]"):
        read_lora({"blocks.0.ffn.0.lora_A.weight": np.zeros((0, 16), np.float32)}, "x")
