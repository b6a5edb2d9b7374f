"""Placement of arrays: meshes, and rules from a parameter's path to its partition.

Sharding is decided by parameter paths, outside the networks. Mesh axes: `data` (batch), `fsdp`
(parameters, gathered when used), `tensor` (heads and hidden channels), `sequence` (tokens).
"""

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from shotstream_jax.typing import Array, Params, PyTree

Device = Any
"""A device, as `jax.devices()` lists them."""

AXES = ("data", "fsdp", "tensor", "sequence")

Rules = Sequence[tuple[str, PartitionSpec]]
"""Path patterns, and how the last axes of the leaves they match are split; the first match wins."""

# Megatron's split: columns of the first matrix of a pair and rows of the second, so that each pair
# (q k v with o, up with down) needs one sum over `tensor`. The last rule catches embeddings and
# head, whose outputs every device needs whole.
TRANSFORMER_RULES: Rules = (
    (r"(q|k|v|up|gate)/kernel$", PartitionSpec("fsdp", "tensor")),
    (r"(q|k|v|up|gate)/bias$", PartitionSpec("tensor")),
    (r"norm_(q|k)/scale$", PartitionSpec("tensor")),
    (r"(o|down)/kernel$", PartitionSpec("tensor", "fsdp")),
    (r"token_embedding/embedding$", PartitionSpec("fsdp", "tensor")),
    (r"position_bias$", PartitionSpec(None, "tensor")),
    (r"kernel$", PartitionSpec("fsdp", None)),
)
"""Heads and hidden channels over `tensor`, the other side of every matrix over `fsdp`."""

# The two leaves of a quantised kernel; a norm's own parameter is called `scale` as well.
_QUANTISED_PART = re.compile(r"(?<=/kernel)/(int8|scale)$")
_CACHE_SPECS = {
    5: PartitionSpec(None, "data", None, "tensor", None),
    6: PartitionSpec(None, "data", None, None, "tensor", None),
}
"""By rank: `[layer batch slot head head_dim]`, `[layer batch caption text_token head head_dim]`."""


def make_mesh(devices: Sequence[Device] | None = None, **sizes: int) -> Mesh:
    """A mesh with all of `AXES`; axes that are not named have one device.

    Raises:
      ValueError: an unknown axis, or sizes that do not multiply to the devices.
    """
    unknown = sorted(set(sizes) - set(AXES))
    if unknown:
        raise ValueError(f"Mesh axis {unknown[0]!r} is unknown; there are {', '.join(AXES)}.")
    shape = tuple(sizes.get(axis, 1) for axis in AXES)
    devices = list(jax.devices() if devices is None else devices)
    if math.prod(shape) != len(devices):
        named = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
        raise ValueError(
            f"A mesh of {named or 'one device'} has {math.prod(shape)} places for "
            f"{len(devices)} devices; make the product the same."
        )
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def film_mesh(heads: int, devices: Sequence[Device] | None = None) -> Mesh:
    """A mesh for inference: heads split over as many of the devices as divide them evenly."""
    # Tensor parallelism only: a film is one sample, and every step needs all weights at once.
    devices = list(jax.devices() if devices is None else devices)
    # Devices that no even split can use stay idle.
    tensor = max(n for n in range(1, len(devices) + 1) if heads % n == 0)
    return make_mesh(devices[:tensor], tensor=tensor)


def split_devices(
    heads: int, devices: Sequence[Device], *, vae_apart: bool
) -> tuple[Mesh, Sharding | None]:
    """A mesh for inference, and with `vae_apart` the last device reserved for the autoencoder.

    Raises:
      ValueError: `vae_apart` with a single device.
    """
    if not vae_apart:
        return film_mesh(heads, devices), None
    if len(devices) < 2:
        raise ValueError(
            "An autoencoder apart needs a device of its own and there is one; leave it out."
        )
    return film_mesh(heads, devices[:-1]), SingleDeviceSharding(devices[-1])


def shardings_for(params: PyTree[Any], mesh: Mesh, rules: Rules = TRANSFORMER_RULES) -> Any:
    """A sharding for every leaf of a tree of arrays or shapes, by the path of the leaf.

    Rules name a leaf's last axes, so stacked layers are never split; both parts of a leaf in 8 bits
    are placed as the leaf would be. An axis that a mesh does not divide evenly stays whole; a leaf
    that no rule matches is replicated.
    """

    def place(path: Any, leaf: Any) -> NamedSharding:
        name = "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
        name = _QUANTISED_PART.sub("", name)
        spec = next((spec for pattern, spec in rules if re.search(pattern, name)), PartitionSpec())
        return NamedSharding(mesh, _fit(spec, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(place, params)


def placed_shapes(shapes: PyTree[Any], shardings: PyTree[Any]) -> Any:
    """Shapes of a tree of arrays or shapes, with shardings; one sharding may cover a branch."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        jax.tree.broadcast(shardings, shapes),
    )


def cache_shardings(cache: PyTree[Any], mesh: Mesh) -> Any:
    """A sharding for every leaf of a key/value cache: whole heads on a device."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, _CACHE_SPECS[leaf.ndim]), cache)


def split_rows(frames: PyTree[Any], mesh: Mesh) -> Any:
    """A sharding for every leaf `[batch frame row col chan]`: rows over the mesh.

    The autoencoder has no heads to split; the compiler exchanges the rows that convolutions need
    from a neighbour. Rows that do not divide over all devices are split over `tensor`, or not at
    all.
    """

    def place(leaf: Any) -> NamedSharding:
        for axes in (("fsdp", "tensor"), ("tensor",)):
            if leaf.shape[2] % math.prod(mesh.shape[axis] for axis in axes) == 0:
                return NamedSharding(mesh, PartitionSpec(None, None, axes))
        return replicated(mesh)

    return jax.tree.map(place, frames)


def sample_axes(samples: int, mesh: Mesh) -> tuple[str, ...] | None:
    """The mesh axes that a batch is split over; `None` where it does not divide over them."""
    axes = tuple(axis for axis in ("data", "fsdp") if mesh.shape[axis] > 1)
    return None if samples % math.prod(mesh.shape[axis] for axis in axes) else axes


def sample_sharding(samples: int, mesh: Mesh) -> NamedSharding:
    """A batch split over the devices, or replicated where it does not divide."""
    return NamedSharding(mesh, PartitionSpec(sample_axes(samples, mesh)))


def each_sample(
    apply: Callable[[Params, Array], PyTree[Array]], mesh: Mesh | None
) -> Callable[[Params, Array], PyTree[Array]]:
    """`apply(params, sample)` over a batch: each device runs its own samples one after another.

    For work that fits a chip one sample at a time; the weights are replicated.
    """

    def in_turn(params: Params, batch: Array) -> PyTree[Array]:
        return jax.lax.map(functools.partial(apply, params), batch)

    if mesh is None or mesh.size == 1:
        return in_turn

    def on_each(params: Params, batch: Array) -> PyTree[Array]:
        spec = PartitionSpec(sample_axes(len(batch), mesh))
        split = jax.shard_map(
            in_turn, mesh=mesh, in_specs=(PartitionSpec(), spec), out_specs=spec, check_vma=False
        )
        return split(params, batch)

    return on_each


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def _fit(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    padded = (None,) * (len(shape) - len(spec)) + tuple(spec)[max(0, len(spec) - len(shape)) :]
    fits = [
        axis if axis is not None and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(padded, shape, strict=True)
    ]
    return PartitionSpec(*fits)
