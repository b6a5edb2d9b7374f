"""Networks are found under any prefix, and which of several is read is said or asked."""

import numpy as np
import pytest

from shotstream_jax.checkpoints.names_dit import diffusers_dit_names, dit_names
from shotstream_jax.checkpoints.names_vae import vae_names
from shotstream_jax.checkpoints.network_search import find_network

PREFIXES = (
    "",
    "model.",
    "module.",
    "_orig_mod.",
    "model.diffusion_model.",
    "module._orig_mod.",
    "_fsdp_wrapped_module.model._checkpoint_wrapped_module.",
    "state_dict.net.student.",
    "generator.model.",
    "generator_ema._fsdp_wrapped_module.model.",
)


def prefixed(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


@pytest.fixture
def dit(random_tensors, sizes):
    return random_tensors(dit_names(sizes["dit"]))


@pytest.fixture
def vae(random_tensors, sizes):
    return random_tensors(vae_names(sizes["vae"]))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("names", [dit_names, diffusers_dit_names])
def test_a_prefix_is_found_without_being_told(prefix, names, sizes, random_tensors):
    """Kind: the same weights under the wrapper of another program (dit_comfy, dit_ddp)."""
    table = names(sizes["dit"])
    found = find_network(prefixed(prefix, random_tensors(table)), "x")
    assert (found.format.network, found.tensors.keys()) == ("dit", table.keys())


def test_wrappers_inside_names_are_left_out(dit):
    """Kind: torch compiles or rematerialises single blocks."""
    wrapped = {name.replace(".ffn", "._orig_mod.ffn"): tensor for name, tensor in dit.items()}
    assert find_network(wrapped, "x").tensors.keys() == dit.keys()
    twice = wrapped | {"blocks.0.ffn.0.bias": dit["blocks.0.ffn.0.bias"]}
    with pytest.raises(ValueError, match=r"Two tensors are named blocks\.0\.ffn\.0\.bias"):
        find_network(twice, "x")


def test_the_choice_of_the_generator_is_said(dit):
    """Kind: a file holds several states of one network."""
    both = prefixed("generator.model.", dit) | prefixed("generator_ema.model.", dit)
    both |= {"critic.other": np.ones(1)}
    found = find_network(both, "x")
    said = "not read, but there as well: generator_ema.model (Wan2.1 transformer)"
    assert any(said in note for note in found.notes)
    assert found.tensors["head.head.bias"] is dit["head.head.bias"]
    ema = find_network(both, "x", section="generator_ema")
    assert ema.tensors.keys() == dit.keys()
    assert find_network(both, "x", "generator_ema.model").tensors.keys() == dit.keys()


def test_a_damaged_generator_is_not_replaced_by_its_average(dit):
    """Kind: a network that is chosen in silence because the one that was meant is incomplete."""
    both = prefixed("generator.", dit) | prefixed("generator_ema.", dit)
    del both["generator.time_embedding.0.weight"]
    assert "time_embedding.0.weight" not in find_network(both, "x").tensors


def test_several_that_might_be_meant_are_named_exactly(dit):
    """Kind: candidates are named as --section takes them."""
    both = prefixed("ema.module.", dit) | prefixed("model.", dit)
    with pytest.raises(ValueError, match=r"add --section ema\.module or --section model\."):
        find_network(both, "x")
    assert find_network(both, "x", "ema.module").tensors.keys() == dit.keys()
    with pytest.raises(ValueError, match=r"no section 'other'; it has ema, model"):
        find_network(both, "x", "other")


def test_the_transformer_of_a_file_with_all_networks_is_read_and_the_rest_is_said(dit, vae):
    """Kind: what was not read is printed."""
    whole = prefixed("first_stage_model.", vae) | prefixed("model.diffusion_model.", dit)
    found = find_network(whole, "x")
    assert found.format.network == "dit"
    assert any("first_stage_model (Wan2.1 autoencoder)" in note for note in found.notes)
    assert find_network(whole, "x", "first_stage_model").format.network == "vae"
    more = prefixed("model.", dit) | {"optimizer.state": np.ones(1), "sampler": np.ones(1)}
    assert any("2 tensors outside model" in note for note in find_network(more, "x").notes)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("img_emb.proj.0.weight", "image-to-video"),
        ("vace_blocks.0.norm.weight", "VACE"),
        ("encoder.downsamples.0.downsamples.0.residual.2.weight", "Wan2.2-TI2V-5B"),
        ("encoder.down_blocks.0.resnets.0.conv1.weight", "Wan2.2-TI2V-5B"),
    ],
)
def test_models_that_do_not_film_here_are_refused_by_their_own_name(dit, vae, name, model):
    """Kind: another model of the family, refused as what it is and not as a damaged one."""
    tensors = vae if name.startswith("encoder") else dit
    with pytest.raises(ValueError, match=rf"x is .*{model}.*not implemented"):
        find_network(prefixed("model.", tensors | {name: np.ones(1)}), "x")


def test_a_lora_given_as_weights_is_told_apart():
    """Kind: messages say what a file is."""
    with pytest.raises(ValueError, match=r"holds LoRA factors .* --lora"):
        find_network({"blocks.0.ffn.0.lora_A.weight": np.ones((1, 1))}, "x")
    with pytest.raises(ValueError, match=r"none of the networks .* the first: a, b"):
        find_network({"a": np.ones(1), "b": np.ones(1)}, "x")


def test_hostile_names_take_linear_time():
    """Kind: parsing in linear time."""
    with pytest.raises(ValueError, match="none of the networks"):
        find_network({"a." * 500_000 + str(i): np.ones(1) for i in range(3)}, "x")
