"""Low-rank adapters of the diffusion transformer, as functions on parameter trees.

An adapter is a tree shaped like the part of `params` that it adapts, a pair of factors for every
kernel; layers stay stacked:

    kernel [layer, inputs, outputs]    ->    a [layer, inputs, rank], b [layer, rank, outputs]

No module is wrapped: the adapted network is the network with `merge(params, lora, scale)`. To
train adapters, differentiate through the merge with respect to them alone.

Source: Hu et al. 2021, equation 3; the defaults are those of the public ShotStream adapter.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from shotstream_jax.typing import Array, Float, Key, Params

LoRATarget = tuple[str, str]
"""Sublayer and linear layer within it."""

ALL_LINEARS: tuple[LoRATarget, ...] = (
    *(("self_attention", linear) for linear in "qkvo"),
    *(("cross_attention", linear) for linear in "qkvo"),
    ("ffn", "up"),
    ("ffn", "down"),
)
"""Every linear layer inside a block; embeddings, modulation, norms and head are never adapted."""


def init_lora(
    key: Key[Array, ""], params: Params, rank: int, targets: Sequence[LoRATarget] = ALL_LINEARS
) -> Params:
    """Draw float32 adapters with a product of zero: `a` uniform within inputs^-1/2, `b` zero.

    A target's draw does not depend on which others are adapted.

    Raises:
      ValueError: a rank outside [1, min(inputs, outputs)], or a target missing in the network.
    """
    blocks: dict[str, Any] = {}
    for target in targets:
        layers, inputs, outputs = _kernel(params, target).shape
        if not 1 <= rank <= min(inputs, outputs):
            raise ValueError(
                f"Rank {rank} for {_name(target)}, a kernel of {inputs} x {outputs}; "
                f"choose 1 to {min(inputs, outputs)}."
            )
        # Keyed by the target, not by its place in `targets`: adding one leaves the others' draws.
        own_key = jax.random.fold_in(key, ALL_LINEARS.index(target))
        # The bound of PEFT's default, Kaiming-uniform with a = sqrt(5).
        bound = inputs**-0.5
        blocks.setdefault(target[0], {})[target[1]] = {
            "a": jax.random.uniform(own_key, (layers, inputs, rank), minval=-bound, maxval=bound),
            "b": jnp.zeros((layers, rank, outputs)),
        }
    return {"blocks": blocks}


def merge(params: Params, lora: Params, scale: float) -> Params:
    """Parameters with `scale * a @ b` added to every adapted kernel, computed in float32.

    `scale` is alpha / rank. Arrays without an adapter are passed on, not copied.

    Raises:
      ValueError: adapters of a target missing in the network, or of another size.
    """
    blocks = dict(params["blocks"])
    for sublayer, linears in lora["blocks"].items():
        blocks[sublayer] = dict(blocks.get(sublayer, {}))
        for linear, factors in linears.items():
            target = (sublayer, linear)
            kernel = _add_product(_kernel(params, target), factors, scale, target)
            blocks[sublayer][linear] = blocks[sublayer][linear] | {"kernel": kernel}
    return params | {"blocks": blocks}


def add_changes(params: Params, changes: Params) -> Params:
    """Parameters with differences of whole leaves added, each computed in float32.

    Leaves without a difference are passed on, not copied.

    Raises:
      ValueError: a difference of a leaf that is not in the network.
    """
    changed = dict(params)
    for name, change in changes.items():
        if name not in params:
            raise ValueError(f"No {name} to change in this network; it has {', '.join(params)}.")
        if isinstance(change, dict):
            changed[name] = add_changes(params[name], change)
        else:
            leaf = params[name]
            changed[name] = (leaf.astype(jnp.float32) + change).astype(leaf.dtype)
    return changed


def _add_product(
    kernel: Float[Array, "layer inputs outputs"], factors: Params, scale: float, target: LoRATarget
) -> Float[Array, "layer inputs outputs"]:
    a, b = factors["a"], factors["b"]
    layers, inputs, outputs = kernel.shape
    rank = a.shape[-1]
    if (a.shape, b.shape) != ((layers, inputs, rank), (layers, rank, outputs)):
        raise ValueError(
            f"Adapters of {_name(target)} multiply {a.shape} by {b.shape}, and its kernel is "
            f"{kernel.shape}; take both from networks of one size."
        )
    wide = [x.astype(jnp.float32) for x in (a, b)]
    # Small and once a step, so full precision is cheap; a TPU's default would round to bfloat16.
    change = jnp.einsum("lir,lro->lio", *wide, precision=jax.lax.Precision.HIGHEST)
    return (kernel.astype(jnp.float32) + scale * change).astype(kernel.dtype)


def _kernel(params: Params, target: LoRATarget) -> Float[Array, "layer inputs outputs"]:
    sublayer, linear = target
    try:
        return params["blocks"][sublayer][linear]["kernel"]
    except KeyError:
        known = ", ".join(_name(known) for known in ALL_LINEARS)
        raise ValueError(
            f"No {_name(target)} to adapt in this network; choose of {known}."
        ) from None


def _name(target: LoRATarget) -> str:
    return ".".join(target)
