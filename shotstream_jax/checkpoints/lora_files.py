"""LoRA files in every common layout: read, and merged into base weights.

An adapted kernel is `W + strength * scale * B A` in torch's orientation, [out, in]. Some files hold
differences of whole tensors besides (`diff`, `diff_b`: biases, norms), which count with the
strength alone.

Source: Hu et al. 2021 (LoRA), section 4.1; public ShotStream repository,
tools/merge_lora_checkpoint.py; peft, LoraLayer; lightx2v, the differences.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from shotstream_jax.checkpoints.lora_keys import LoRAModule, find_modules
from shotstream_jax.checkpoints.lora_scales import (
    LoRASettings,
    ModuleScale,
    check_ranks,
    listed_range,
    positive,
    scale_of,
)
from shotstream_jax.checkpoints.lora_source import LoRARequest, open_lora
from shotstream_jax.checkpoints.names_dit import diffusers_dit_names, dit_names
from shotstream_jax.checkpoints.naming import NameTable, ParamPath, TensorMapping
from shotstream_jax.checkpoints.tensors import LazyArray, Tensor, Tensors, is_float
from shotstream_jax.models.configs import DiTConfig

Place = tuple[ParamPath, int | None]
"""Path of a leaf in our parameter tree, and the layer within it."""


@dataclasses.dataclass(frozen=True)
class LowRankUpdate:
    """A product of two factors, to be added to a kernel of shape [out, ...].

    Attributes:
      a: first factor, [rank, in], or a convolution's [rank, in, ...].
      b: second factor, [out, rank, ...].
      scale: what the product is multiplied by, strength included.
    """

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """Inner width of the factors."""
        return self.a.shape[0]

    @property
    def arrays(self) -> tuple[Tensor, ...]:
        """Both factors."""
        return (self.a, self.b)


@dataclasses.dataclass(frozen=True)
class DenseUpdate:
    """A difference of a whole tensor, to be added with a scale."""

    difference: Tensor
    scale: float

    @property
    def arrays(self) -> tuple[Tensor, ...]:
        """The difference alone."""
        return (self.difference,)


@dataclasses.dataclass(frozen=True)
class LoRA:
    """All that a file adds to a transformer.

    Attributes:
      updates: what is added, by place, in torch's orientation.
      summary: one line: what it is, how strong, and how much of the transformer it changes.
      notes: what was guessed or left out, one line each.
    """

    updates: Mapping[Place, LowRankUpdate | DenseUpdate]
    summary: str
    notes: tuple[str, ...] = ()


def read_lora(request: LoRARequest, config: DiTConfig, alpha: float | None = None) -> LoRA:
    """Open a LoRA for a transformer of these sizes; no factors are read yet.

    `alpha` is used where the file tells none.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no LoRA, one of another transformer or kind, one that is incomplete or damaged, or
        one that tells two alphas.
    """
    source, where = open_lora(request.path), request.path
    dialects = _dialects(config)
    dialect, modules = find_modules(source.tensors, dialects, where)
    settings = list(source.settings)
    if alpha is not None:
        settings.append(LoRASettings(origin="--lora-alpha", alpha=alpha))
    table = dialects[dialect]
    updates: dict[Place, LowRankUpdate | DenseUpdate] = {}
    scales: list[ModuleScale] = []
    for module in modules:
        scale = _module_scale(module, source.tensors, settings, where)
        scales += [] if scale is None else [scale]
        for name, update in _updates(module, source.tensors, scale, request.strength, where):
            mapping = _mapping(table, name, module, where)
            _check_shape(update, mapping, name, where)
            updates[mapping.path, mapping.layer] = update
    ranks = [update.rank for update in updates.values() if isinstance(update, LowRankUpdate)]
    check_ranks(ranks, settings, where)
    notes = (*source.notes, *_notes(modules, scales, where.name))
    return LoRA(updates, _summary(request, updates, scales, config), notes)


def merge_lora(table: NameTable, tensors: Tensors, loras: Sequence[LoRA]) -> Tensors:
    """Base tensors, of which the adapted ones are merged in float32 when they are read.

    Tensors are matched by their path in our tree, so a base in any layout (`table`) is accepted.

    Raises:
      ValueError: a LoRA changes a tensor that the base does not have.
    """
    # All at once: a sum that is rounded after every LoRA would depend on their order.
    left = {place for lora in loras for place in lora.updates}
    merged = dict(tensors)
    for name, mapping in table.items():
        place = (mapping.path, mapping.layer)
        updates = [lora.updates[place] for lora in loras if place in lora.updates]
        left.discard(place)
        # A base that lacks the tensor itself is refused as partial, which says more.
        if updates and name in tensors:
            merged[name] = _merged(tensors[name], updates, name)
    if left:
        path, layer = min(left, key=str)
        raise ValueError(
            f"LoRA adapts {'.'.join(path)} of layer {layer}, which the base does not have; "
            "give the base that it was trained on."
        )
    return merged


def product(update: LowRankUpdate | DenseUpdate) -> Float[np.ndarray, "..."]:
    """What is added: `scale * B A` as [out, in], or a scaled difference, in float32.

    Raises:
      ValueError: values that are not finite.
    """
    if isinstance(update, DenseUpdate):
        change = np.asarray(update.difference).astype(np.float32)
    else:
        # Factors may be bfloat16: products are summed over the rank before anything is rounded.
        a = np.asarray(update.a).astype(np.float32).reshape(update.rank, -1)
        b = np.asarray(update.b).astype(np.float32).reshape(-1, update.rank)
        change = b @ a
    return np.float32(update.scale) * change


@functools.lru_cache(maxsize=2)
def _dialects(config: DiTConfig) -> Mapping[str, NameTable]:
    # Cached: one command may read several LoRAs, and a table has a thousand names.
    return {"official": dit_names(config), "diffusers": diffusers_dit_names(config)}


def _merged(base: Tensor, updates: Sequence[LowRankUpdate | DenseUpdate], name: str) -> LazyArray:
    # Merged when read: memory holds one merged kernel, not a second transformer.
    def read() -> np.ndarray:
        total = np.asarray(base).astype(np.float32)
        for update in updates:
            change = product(update)
            if not np.isfinite(change).all():
                raise ValueError(f"The LoRA's change of {name} is not finite; fetch it again.")
            total = total + change.reshape(base.shape)
        return total.astype(base.dtype)

    return LazyArray(base.shape, base.dtype, read)


def _module_scale(
    module: LoRAModule, tensors: Tensors, settings: Sequence[LoRASettings], where: object
) -> ModuleScale | None:
    """How strongly the factors of a module count; `None` for a module of differences alone."""
    roles = module.tensors
    pair = [roles[role] for role in ("a", "b") if role in roles]
    if len(pair) == 1 or ("b_bias" in roles and not pair):
        alone = (*pair, roles.get("b_bias"))[0]
        raise ValueError(f"{where} has {alone} without the other factor; fetch the file again.")
    if "a" not in roles:
        if roles.keys() <= {"alpha", "scale"}:
            raise ValueError(f"{where} has {next(iter(roles.values()))} without factors.")
        return None
    for name in (roles["a"], roles["b"]):
        if len(tensors[name].shape) < 2 or 0 in tensors[name].shape:
            shape = list(tensors[name].shape)
            raise ValueError(f"{where} has {name} of shape {shape}; a factor is a matrix.")
    told = {
        (f"{roles[role]}" if role == "alpha" else "scale"): _scalar(tensors, roles[role], where)
        for role in ("alpha", "scale")
        if role in roles
    }
    # peft's patterns are written for the model that was trained, which may be a wrapper.
    whole = f"{module.prefix}.{module.name}".removeprefix("base_model.").removeprefix("model.")
    rank = tensors[roles["a"]].shape[0]
    return scale_of((module.name, whole), rank, settings, told, where)


def _scalar(tensors: Tensors, name: str, where: object) -> float:
    tensor = tensors[name]
    if int(np.prod(tensor.shape)) != 1:
        raise ValueError(f"{where} has {name} of shape {list(tensor.shape)}; it must be a number.")
    return positive(np.asarray(tensor).reshape(-1)[0].item(), f"{name} in {where}")


def _updates(
    module: LoRAModule,
    tensors: Tensors,
    scale: ModuleScale | None,
    strength: float,
    where: object,
) -> list[tuple[str, LowRankUpdate | DenseUpdate]]:
    """What a module's tensors add, each with the name of the tensor that it is added to."""
    found: list[tuple[str, LowRankUpdate | DenseUpdate]] = []
    roles = {role: tensors[name] for role, name in module.tensors.items()}
    for role, name in module.tensors.items():
        if role not in ("alpha", "scale") and not is_float(roles[role]):
            raise ValueError(
                f"{where} has {name} as {roles[role].dtype}; factors are floating-point numbers."
            )
    if scale is not None:
        factor = scale.scale * strength
        found.append((f"{module.name}.weight", LowRankUpdate(roles["a"], roles["b"], factor)))
        if "b_bias" in roles:
            found.append((f"{module.name}.bias", DenseUpdate(roles["b_bias"], factor)))
    for role, end in (("diff", ".weight"), ("diff_bias", ".bias"), ("diff_table", ".modulation")):
        if role in roles:
            found.append((module.name + end, DenseUpdate(roles[role], strength)))
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise ValueError(
            f"{where} changes {module.name} by factors and by a difference of the same tensor; "
            "save it with one of them."
        )
    return found


def _mapping(table: NameTable, name: str, module: LoRAModule, where: object) -> TensorMapping:
    # A table of modulations has no `weight` in its name.
    mapping = table.get(name) or table.get(name.removesuffix(".weight"))
    if mapping is None:
        raise ValueError(
            f"{where} has {next(iter(module.tensors.values()))}, and the transformer has no "
            f"{name}; give a LoRA that was made for it."
        )
    return mapping


def _check_shape(
    update: LowRankUpdate | DenseUpdate, mapping: TensorMapping, name: str, where: object
) -> None:
    """Raises: ValueError: an update of another shape than its tensor, with both."""
    if isinstance(update, DenseUpdate):
        found = [n for n in update.difference.shape if n != 1]
        if found != [n for n in mapping.shape if n != 1]:
            raise ValueError(
                f"{where} changes {name} by a difference of shape {list(update.difference.shape)}, "
                f"and it has {list(mapping.shape)}; give a LoRA of a transformer of this size."
            )
        return
    (rank, *into), (out, inner, *ones) = update.a.shape, update.b.shape
    # A LoRA of a convolution has the same product; its second factor looks at one position.
    expected_out, *expected_in = mapping.shape
    fits = bool(expected_in) and (out, inner) == (expected_out, rank)
    fits = fits and into[:1] == expected_in[:1] and np.prod(into) == np.prod(expected_in)
    fits = fits and np.prod(ones) == 1
    if not fits:
        raise ValueError(
            f"{where} multiplies {list(update.b.shape)} by {list(update.a.shape)} for {name}, "
            f"which has {list(mapping.shape)}; give a LoRA of a transformer of this size."
        )


def _notes(
    modules: Sequence[LoRAModule], scales: Sequence[ModuleScale], where: str
) -> tuple[str, ...]:
    prefixes = sorted({module.prefix for module in modules if module.prefix})
    notes = [f"prefix {', '.join(prefixes)} of the names is left out"] if prefixes else []
    untold = sum(not scale.origin for scale in scales)
    if untold:
        some = "" if untold == len(scales) else f" for {untold} of {len(scales)} modules"
        notes.append(f"{where} tells no alpha{some}: the rank is taken (--lora-alpha sets it)")
    return tuple(notes)


def _summary(
    request: LoRARequest,
    updates: Mapping[Place, LowRankUpdate | DenseUpdate],
    scales: Sequence[ModuleScale],
    config: DiTConfig,
) -> str:
    layers = {layer for _, layer in updates if layer is not None}
    parts = []
    ranks = [update.rank for update in updates.values() if isinstance(update, LowRankUpdate)]
    if ranks:
        origins = dict.fromkeys(
            # Every module has a tensor of its own name: one word stands for all.
            ".alpha" if scale.origin.endswith(".alpha") else scale.origin
            for scale in scales
            if scale.origin
        )
        told = f" ({', '.join(origins)})" if origins else ""
        parts = [
            f"{len(ranks)} kernels",
            f"rank {listed_range(map(float, ranks))}",
            f"alpha {listed_range([scale.alpha for scale in scales])}{told}",
            f"scale {listed_range([scale.scale for scale in scales])}",
        ]
    if len(updates) > len(ranks):
        parts.append(f"{len(updates) - len(ranks)} differences")
    touched = f"{len(layers)} of {config.layers} layers"
    return f"LoRA {request.path.name}: {touched}, {', '.join(parts)}, strength {request.strength:g}"
