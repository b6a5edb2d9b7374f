"""How strongly a LoRA counts: alpha, rank and scale, from wherever a trainer wrote them.

The change of a kernel is `scale * B A`. `scale` is alpha / rank, or alpha / sqrt(rank) with
rank-stabilised LoRA. Alpha is in `adapter_config.json` (peft), in the metadata of the file (kohya,
diffusers), in a tensor `<module>.alpha` (kohya, ComfyUI), or nowhere: then it is the rank. Two
places that disagree are refused: one of them is wrong, and no shape shows which.

Source: public peft, LoraConfig, LoraLayer.update_layer and get_pattern_key; kohya-ss/sd-scripts,
networks/lora.py.
"""

import dataclasses
import functools
import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shotstream_jax.strict_json import brief, load_object

ADAPTER_CONFIG = "adapter_config.json"

# peft's own defaults (LoraConfig), which it takes where the file does not say.
_PEFT_DEFAULT = 8

_ALPHA = ("ss_network_alpha", "network_alpha", "lora_alpha", "alpha")
_RANK = ("ss_network_dim", "network_dim", "lora_rank", "lora_dim", "rank", "r")
_SCALE = ("scale", "lora_scale", "scaling")
_RSLORA = ("use_rslora", "rslora", "rs_lora")
_DORA = ("use_dora", "dora", "dora_wd", "weight_decompose")
_PATTERNS = ("rank_pattern", "alpha_pattern")
# Objects within metadata, as JSON: diffusers' (0.34), peft's under names in use, and kohya's.
_NESTED = ("lora_adapter_metadata", "adapter_config", "lora_config", "peft_config")
_NESTED_ARGUMENTS = "ss_network_args"
# diffusers writes the settings of every network of a pipeline into one object.
_TRANSFORMER = "transformer."
# What kohya writes where modules differ, or where nothing was set.
_UNTOLD = ("", "none", "null", "dynamic")

# These begin with singular vectors, or quantisation errors, that were taken out of the base: added
# to the base itself they count twice.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")

# Patterns are regular expressions from a file. Without repeated groups, and with few repetitions
# and groups, matching takes polynomial time in a name of some 60 characters.
_MOST_REPEATS, _LONGEST_PATTERN, _MOST_PATTERNS = 3, 200, 2000
_REPEATED_GROUP = re.compile(r"\)\s*[*+?{]")
_REPEAT = re.compile(r"[*+?{]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRASettings:
    """What one place tells of a LoRA.

    Attributes:
      origin: the place, for messages.
      rank: of all factors but those in `rank_pattern`.
      alpha: of all modules but those in `alpha_pattern`.
      scale: the scale itself, which some write instead.
      is_rslora: whether alpha is divided by the root of the rank.
      rank_pattern: ranks of modules, by regular expression.
      alpha_pattern: alphas of modules, likewise.
      is_strict: whether every factor must have the rank that is told.
    """

    origin: str
    rank: int | None = None
    alpha: float | None = None
    scale: float | None = None
    is_rslora: bool = False
    rank_pattern: Mapping[str, float] = dataclasses.field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = dataclasses.field(default_factory=dict)
    is_strict: bool = False


@dataclasses.dataclass(frozen=True)
class ModuleScale:
    """How strongly the factors of one module count.

    Attributes:
      scale: what their product is multiplied by.
      alpha: numerator of the scale.
      origin: where it was told; empty if nowhere.
    """

    scale: float
    alpha: float
    origin: str


def read_adapter_config(path: pathlib.Path) -> LoRASettings:
    """The settings in peft's `adapter_config.json`.

    Raises:
      ValueError: a damaged file, another kind of adapter, or settings that are not implemented.
    """
    document = load_object(path)
    kind = document.get("peft_type", "LORA")
    if kind != "LORA":
        raise ValueError(f"{path} has peft_type {brief(kind)}; only LORA is read here.")
    start = document.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGED_BASE):
        raise ValueError(
            f"{path} has init_lora_weights {brief(start)}, which changes the base as well; save "
            "the adapter as a plain LoRA (peft: path_initial_model_for_weight_conversion)."
        )
    if document.get("layer_replication"):
        raise ValueError(f"{path} has layer_replication, which is not implemented; merge it first.")
    # peft takes its defaults where the file is silent.
    filled = {"r": _PEFT_DEFAULT, "lora_alpha": _PEFT_DEFAULT, **document}
    settings = _settings(filled, str(path))
    return dataclasses.replace(settings, origin=path.name, is_strict=True)


def read_metadata(metadata: Mapping[str, str], where: object) -> LoRASettings:
    """The settings in the metadata of a safetensors file.

    Raises:
      ValueError: a value that cannot be read, or two that disagree.
    """
    settings: dict[str, Any] = dict(metadata)
    for name in _NESTED:
        for key, value in _json_object(metadata, name, where).items():
            short = key.removeprefix(_TRANSFORMER)
            # Settings of a text encoder (`text_encoder.r`) are another network's.
            if "." not in short:
                _agree(settings, short, value, where)
    arguments = _json_object(metadata, _NESTED_ARGUMENTS, where)
    settings |= {key: arguments[key] for key in (*_RSLORA, *_DORA) if key in arguments}
    for name in _PATTERNS:
        if isinstance(settings.get(name), str):
            settings[name] = _json_object(settings, name, where)
    return dataclasses.replace(_settings(settings, f"the metadata of {where}"), origin="metadata")


def scale_of(
    names: Sequence[str],
    rank: int,
    settings: Sequence[LoRASettings],
    told: Mapping[str, float],
    where: object,
) -> ModuleScale:
    """The scale of one module.

    Args:
      names: the module's name in the file's dialect first, for patterns and messages.
      rank: of its factors.
      settings: what the places beside the tensors tell.
      told: alphas that were told of this module alone, by place; `scale` under that name.
      where: names the file in errors.

    Raises:
      ValueError: places that disagree, a rank that is not the factors', or an alpha that is no
        positive number.
    """
    alphas = {place: value for place, value in told.items() if place != "scale"}
    scales = {"a tensor .scale": told["scale"]} if "scale" in told else {}
    is_rslora = any(setting.is_rslora for setting in settings)
    for setting in settings:
        stated = _matched(
            setting.rank_pattern, names, None if setting.rank is None else float(setting.rank)
        )
        if setting.is_strict and stated not in (None, rank):
            raise ValueError(
                f"{setting.origin} says rank {stated:g} for {names[0]} and its factors in {where} "
                f"have {rank}; give the {ADAPTER_CONFIG} that was saved with them."
            )
        alpha = _matched(setting.alpha_pattern, names, setting.alpha)
        if alpha is not None:
            alphas[setting.origin] = alpha
        if setting.scale is not None:
            scales[setting.origin] = setting.scale
    alpha = _one("alpha", alphas, names[0], where)
    if alpha is None and is_rslora and not scales:
        raise ValueError(
            f"{where} is rank-stabilised and tells no alpha for {names[0]}; add --lora-alpha."
        )
    divisor = math.sqrt(rank) if is_rslora else rank
    stated_scale = _one("scale", scales, names[0], where)
    if stated_scale is None:
        known = float(rank) if alpha is None else alpha
        return ModuleScale(known / divisor, known, ", ".join(alphas))
    if alpha is not None and not math.isclose(alpha / divisor, stated_scale, rel_tol=1e-4):
        raise ValueError(
            f"{where} tells scale {stated_scale:g} for {names[0]}, and alpha {alpha:g} over rank "
            f"{rank} is {alpha / divisor:g}; correct one of them."
        )
    return ModuleScale(stated_scale, stated_scale * divisor, ", ".join((*scales, *alphas)))


def check_ranks(ranks: Sequence[int], settings: Sequence[LoRASettings], where: object) -> None:
    """Raises: ValueError: a rank is told that no factor has."""
    for setting in settings:
        # kohya tells one number also where modules differ; that no module has it is an error.
        is_one = setting.rank is not None and not setting.rank_pattern
        if is_one and ranks and setting.rank not in ranks:
            raise ValueError(
                f"{setting.origin} of {where} says rank {setting.rank}, and its factors have "
                f"{', '.join(map(str, sorted(set(ranks))))}; one of them is another file's."
            )


def positive(value: object, what: str) -> float:
    """A number above 0 that a file tells.

    Raises:
      ValueError: it is none.
    """
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not (math.isfinite(number) and number > 0):
        raise ValueError(f"{what} is {brief(value)}; it must be a number above 0.")
    return number


def _settings(document: Mapping[str, Any], where: str) -> LoRASettings:
    if any(_flag(document, name, where) for name in _DORA):
        raise ValueError(f"{where} says DoRA, which is not read here; merge it with its trainer.")
    rank = _number(document, _RANK, where)
    if rank is not None and rank != int(rank):
        raise ValueError(f"{where} says rank {rank:g}; it must be a whole number.")
    return LoRASettings(
        origin=where,
        rank=None if rank is None else int(rank),
        alpha=_number(document, _ALPHA, where),
        scale=_number(document, _SCALE, where),
        is_rslora=any(_flag(document, name, where) for name in _RSLORA),
        rank_pattern=_pattern(document, "rank_pattern", where),
        alpha_pattern=_pattern(document, "alpha_pattern", where),
    )


def _number(document: Mapping[str, Any], names: Sequence[str], where: str) -> float | None:
    told = {
        name: positive(document[name], f"{name} in {where}")
        for name in names
        if name in document and str(document[name]).strip().lower() not in _UNTOLD
    }
    return _one(names[-1], told, "all modules", where)


def _one(what: str, told: Mapping[str, float], module: str, where: object) -> float | None:
    """The one value that all places agree on, `None` if none tells any."""
    values = list(told.values())
    if any(not math.isclose(value, values[0], rel_tol=1e-4) for value in values):
        listed = " and ".join(f"{value:g} ({place})" for place, value in told.items())
        raise ValueError(
            f"{where} contradicts itself: {what} of {module} is {listed}; correct one of them."
        )
    return values[0] if values else None


def _flag(document: Mapping[str, Any], name: str, where: str) -> bool:
    value = document.get(name, False)
    text = str(value).strip().lower()
    if text in ("true", "1", "yes"):
        return True
    if text in ("false", "0", "no", *_UNTOLD):
        return False
    raise ValueError(f"{name} in {where} is {brief(value)}; it must be true or false.")


def _pattern(document: Mapping[str, Any], name: str, where: str) -> dict[str, float]:
    pattern = document.get(name) or {}
    if not isinstance(pattern, dict):
        raise ValueError(f"{name} in {where} is {brief(pattern)}; it must be an object.")
    if len(pattern) > _MOST_PATTERNS:
        raise ValueError(f"{name} in {where} has {len(pattern)} patterns, over {_MOST_PATTERNS}.")
    for key in pattern:
        if (
            len(key) > _LONGEST_PATTERN
            or _REPEATED_GROUP.search(key)
            or max(len(_REPEAT.findall(key)), key.count("(")) > _MOST_REPEATS
        ):
            raise ValueError(
                f"{name} in {where} has the pattern {brief(key)}, which may take for ever to match;"
                f" write it with at most {_MOST_REPEATS} groups and repetitions, and no group "
                "repeated."
            )
        try:
            _compiled(key)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{name} in {where} has no pattern {brief(key)} ({error}).") from error
    return {key: positive(value, f"{name} {key} in {where}") for key, value in pattern.items()}


def _matched(
    pattern: Mapping[str, float], names: Sequence[str], default: float | None
) -> float | None:
    # As peft: the first pattern that matches the end of a name counts, from a dot on.
    for key, value in pattern.items():
        if any(_compiled(key).match(name) for name in names):
            return value
    return default


@functools.lru_cache(maxsize=2 * _MOST_PATTERNS)
def _compiled(key: str) -> re.Pattern[str]:
    return re.compile(rf"(?:.*\.)?(?:{key})$")


def _agree(settings: dict[str, Any], key: str, value: object, where: object) -> None:
    """Set one setting, which must not contradict another of the same name."""
    if key in settings and str(settings[key]) != str(value):
        raise ValueError(
            f"The metadata of {where} tells {key} {brief(settings[key])} and {brief(value)}; "
            "correct one of them."
        )
    settings[key] = value


def _json_object(document: Mapping[str, Any], name: str, where: object) -> dict[str, Any]:
    text = document.get(name)
    if text is None or str(text).strip().lower() in _UNTOLD:
        return {}
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} in the metadata of {where} is damaged ({error}).") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} in the metadata of {where} must be an object.")
    return value


def listed_range(values: Iterable[float]) -> str:
    """One value, or the smallest and the largest of several, as text."""
    found = sorted(set(values))
    return f"{found[0]:g}" if len(found) == 1 else f"{found[0]:g} to {found[-1]:g}"
