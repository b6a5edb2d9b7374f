"""Adapters: nothing at first, the merged product afterwards, and only where they were put."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models.configs import WAN_1_3B, DiTConfig
from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.lora import ALL_LINEARS, init_lora, merge

SMALL = DiTConfig(dim=12, layers=3, heads=2, ffn_dim=20)
RANK = 4
EVERY_TARGET = pytest.mark.parametrize("target", ALL_LINEARS, ids=".".join)


def linears(config: DiTConfig) -> dict[tuple[str, str], tuple[int, int]]:
    """Inputs and outputs of every linear layer of a block."""
    sizes = dict.fromkeys(ALL_LINEARS[:8], (config.dim, config.dim))
    return sizes | {
        ("ffn", "up"): (config.dim, config.ffn_dim),
        ("ffn", "down"): (config.ffn_dim, config.dim),
    }


def base(key, config: DiTConfig):
    """Blocks of a diffusion transformer, with one array of each kind that is not adapted."""
    blocks = collections.defaultdict(dict)
    for index, ((sublayer, linear), (inputs, outputs)) in enumerate(linears(config).items()):
        shape = (config.layers, inputs, outputs)
        blocks[sublayer][linear] = {
            "kernel": jax.random.normal(jax.random.fold_in(key, index), shape),
            "bias": jnp.ones((config.layers, outputs)),
        }
    blocks["self_attention"]["norm_q"] = {"scale": jnp.ones((config.layers, config.dim))}
    return {
        "blocks": dict(blocks) | {"modulation": jnp.ones((config.layers, 6, config.dim))},
        "head": {"kernel": jnp.ones((config.dim, 64))},
    }


@pytest.fixture(scope="module")
def params():
    return base(jax.random.key(0), SMALL)


@pytest.fixture(scope="module")
def lora(params):
    """Adapters after some training: no factor is zero."""
    fresh = init_lora(jax.random.key(1), params, RANK)
    return jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(2), x.shape) / 4, fresh)


def at(tree, target):
    return tree["blocks"][target[0]][target[1]]


def changed(before, after) -> set[tuple[str, ...]]:
    """Paths of the leaves that differ."""
    differs = jax.tree.map(lambda x, y: bool((x != y).any()), before, after)
    flat, _ = jax.tree_util.tree_flatten_with_path(differs)
    return {tuple(key.key for key in path) for path, leaf in flat if leaf}


def test_ten_targets_a_block(params):
    assert len(set(ALL_LINEARS)) == 10
    pairs = jax.tree.leaves(init_lora(jax.random.key(0), params, RANK), is_leaf=lambda x: "a" in x)
    assert len(pairs) == 10


def test_parameter_count_of_the_full_size_adapters():
    def draw(key):
        return init_lora(key, init_dit(key, WAN_1_3B), rank=256)

    shapes = jax.eval_shape(draw, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 349_962_240


def test_fresh_adapters_are_the_identity(params):
    merged = merge(params, init_lora(jax.random.key(0), params, RANK), scale=1.0)
    assert changed(params, merged) == set()


@EVERY_TARGET
def test_fresh_factors_fill_their_range_and_differ_by_target(params, target):
    inputs, outputs = linears(SMALL)[target]
    fresh = init_lora(jax.random.key(0), params, RANK)
    a, b = at(fresh, target)["a"], at(fresh, target)["b"]
    assert (a.shape, b.shape) == ((3, inputs, RANK), (3, RANK, outputs))
    assert a.dtype == b.dtype == jnp.float32
    assert 0.9 * inputs**-0.5 < jnp.abs(a).max() <= inputs**-0.5
    assert (b == 0).all()
    others = [at(fresh, other)["a"] for other in ALL_LINEARS if other != target]
    assert not any(other.shape == a.shape and (other == a).all() for other in others)


@EVERY_TARGET
def test_merged_kernels_act_as_base_plus_adapter(params, lora, target):
    kernel, factors = at(params, target)["kernel"], at(lora, target)
    x = jax.random.normal(jax.random.key(3), (3, 5, kernel.shape[1]))
    expected = x @ kernel + 0.5 * (x @ factors["a"]) @ factors["b"]
    merged = at(jax.jit(merge, static_argnames="scale")(params, lora, scale=0.5), target)["kernel"]
    np.testing.assert_allclose(x @ merged, expected, rtol=2e-5, atol=2e-5)
    assert not np.allclose(x @ kernel, expected, atol=0.1)


def test_only_the_targets_move(params, lora):
    targets = [("self_attention", "v"), ("ffn", "down")]
    some = {"blocks": {sublayer: {name: at(lora, (sublayer, name))} for sublayer, name in targets}}
    merged = merge(params, some, scale=1.0)
    assert changed(params, merged) == {("blocks", *target, "kernel") for target in targets}
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    assert changed(params, merge(params, lora, scale=1.0)) == {
        ("blocks", *target, "kernel") for target in ALL_LINEARS
    }


def test_a_draw_does_not_depend_on_the_other_targets(params):
    target = ("cross_attention", "k")
    alone = init_lora(jax.random.key(4), params, RANK, targets=[target])
    assert list(alone["blocks"]) == ["cross_attention"]
    together = init_lora(jax.random.key(4), params, RANK)
    assert (at(alone, target)["a"] == at(together, target)["a"]).all()


def test_kernels_keep_their_number_format(params):
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    merged = merge(low, init_lora(jax.random.key(0), low, RANK), scale=1.0)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(merged))


def test_the_sum_is_rounded_once():
    # 1 + 2^-8 lies halfway between two bfloat16 numbers; the 2^-20 that decides is lost if the
    # product is rounded before the sum.
    low = {"blocks": {"ffn": {"up": {"kernel": jnp.ones((1, 1, 1), jnp.bfloat16)}}}}
    factors = {"a": jnp.ones((1, 1, 2)), "b": jnp.array([[[2.0**-8], [2.0**-20]]])}
    merged = merge(low, {"blocks": {"ffn": {"up": factors}}}, scale=1.0)
    assert at(merged, ("ffn", "up"))["kernel"].item() == 1 + 2.0**-7


def test_gradient_reaches_both_factors_of_every_target_and_nothing_else(params, lora):
    def loss(adapters, weights):
        merged = merge(weights, adapters, scale=1.0)
        return sum(jnp.square(at(merged, target)["kernel"]).sum() for target in ALL_LINEARS)

    gradient = jax.jit(jax.grad(loss))(lora, params)
    assert jax.tree.structure(gradient) == jax.tree.structure(lora)
    assert all((jnp.abs(leaf).max(axis=(1, 2)) > 0).all() for leaf in jax.tree.leaves(gradient))


def test_fresh_adapters_learn_b_first(params):
    def loss(adapters):
        return jnp.square(at(merge(params, adapters, 1.0), ("ffn", "up"))["kernel"]).sum()

    gradient = at(jax.grad(loss)(init_lora(jax.random.key(0), params, RANK)), ("ffn", "up"))
    assert (gradient["a"] == 0).all()
    assert (gradient["b"] != 0).any()


@pytest.mark.parametrize("rank", [0, 13])
def test_a_rank_that_a_kernel_cannot_have_is_refused(params, rank):
    with pytest.raises(ValueError, match=rf"Rank {rank} for .* 12 x 12; choose 1 to 12"):
        init_lora(jax.random.key(0), params, rank)


def test_a_target_that_is_not_there_is_refused(params):
    with pytest.raises(ValueError, match=r"No self_attention.norm_q to adapt"):
        init_lora(jax.random.key(0), params, RANK, targets=[("self_attention", "norm_q")])
    stray = {"blocks": {"mixer": {"q": {"a": jnp.ones((3, 12, 1)), "b": jnp.ones((3, 1, 12))}}}}
    with pytest.raises(ValueError, match=r"No mixer.q to adapt"):
        merge(params, stray, scale=1.0)


def test_adapters_of_another_size_are_refused(lora):
    other = base(jax.random.key(0), DiTConfig(dim=16, layers=3, heads=2, ffn_dim=20))
    with pytest.raises(ValueError, match=r"\(3, 12, 4\) by \(3, 4, 12\).*\(3, 16, 16\)"):
        merge(other, lora, scale=1.0)
