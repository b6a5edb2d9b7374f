"""Frozen dataclasses that JAX carries through `jit`, `scan`, `grad` and `vmap`.

JAX rebuilds such a value with leaves of any kind: tracers, shape structs, `None`, bare objects.
Unflattening therefore skips `__init__`, where the type checker of the tests would refuse them.
"""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

Node = TypeVar("Node")


def static(**kwargs: Any) -> Any:
    """A dataclass field that is part of the tree's structure: hashable, and compiled in."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(static,))
def pytree(cls: type[Node]) -> type[Node]:
    """Make `cls` a frozen, keyword-only dataclass and register it with JAX."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    leaves = tuple(f.name for f in fields if not f.metadata.get("static"))
    structure = tuple(f.name for f in fields if f.metadata.get("static"))

    def flatten_with_keys(value: Node) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children = [(jax.tree_util.GetAttrKey(name), getattr(value, name)) for name in leaves]
        return children, tuple(getattr(value, name) for name in structure)

    def flatten(value: Node) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(value, n) for n in leaves], tuple(getattr(value, n) for n in structure)

    def unflatten(aux: tuple[Any, ...], children: Any) -> Node:
        # Frozen, so attributes are set behind the dataclass's back, leaves first as flattened.
        value = object.__new__(cls)
        for name, child in zip(leaves + structure, (*children, *aux), strict=True):
            object.__setattr__(value, name, child)
        return value

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
