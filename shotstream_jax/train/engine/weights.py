"""Checkpoints between stages: what a stage starts from, and what it leaves for the next.

A stage is told all sizes, and reads weights only when it begins: programs can be lowered without a
checkpoint. What it leaves is a whole model, with the networks that it did not touch copied over.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from shotstream_jax.checkpoints.manager import (
    TOKENIZER,
    creating_checkpoint,
    load_network,
    network_config,
    read_config,
    write_network,
)
from shotstream_jax.data.tokenizer import TOKENIZER_FILE
from shotstream_jax.model_config import NetworkConfig, RolloutConfig
from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.text_encoder import TextEncoderConfig, init_text_encoder
from shotstream_jax.models.vae import init_vae
from shotstream_jax.models.vae_config import VAEConfig
from shotstream_jax.train.engine.stage import Scores, Weights
from shotstream_jax.typing import Array, Key, Params

Config = TypeVar("Config", DiTConfig, VAEConfig, TextEncoderConfig)


def stored_config(folder: pathlib.Path, name: str, kind: type[Config]) -> Config:
    """The sizes of one network of a checkpoint.

    Raises:
      FileNotFoundError: no checkpoint in the folder.
      ValueError: the network is not in it, or is of another kind.
    """
    config = network_config(read_config(folder), name)
    if not isinstance(config, kind):
        raise ValueError(f"{folder} says that {name} is a {type(config).__name__}.")
    return config


def network_weights(
    folder: pathlib.Path,
    name: str,
    config: NetworkConfig,
    *,
    dtype: DTypeLike = jnp.float32,
    made_by: Sequence[str] = (),
) -> Weights:
    """One network of a checkpoint, read when it is needed.

    Loading raises a ValueError for a network of other sizes, or of a stage that is not among
    `made_by` (of any, if none are named), and a FileNotFoundError if there is no checkpoint.
    """
    shapes = jax.eval_shape(_init_of(config), jax.random.key(0))

    def load(shardings: Any) -> Params:
        check_origin(folder, name, config, made_by)
        return load_network(folder, name, dtype=dtype, shardings=shardings)

    cast = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes)
    return Weights(shapes=cast, load=load)


def check_origin(
    folder: pathlib.Path, name: str, config: NetworkConfig, made_by: Sequence[str]
) -> None:
    """Refuse a network that is not the one that was meant.

    Raises:
      FileNotFoundError: no checkpoint in the folder.
      ValueError: a network of other sizes or of another stage, with both values.
    """
    stored = read_config(folder)
    found = network_config(stored, name)
    if isinstance(found, DiTConfig) and isinstance(config, DiTConfig):
        # Weights of any phase can be trained further with another.
        found = dataclasses.replace(found, shot_phase=config.shot_phase)
    if found != config:
        was, now = dataclasses.asdict(found), dataclasses.asdict(config)
        odd = next(key for key in now if was.get(key) != now[key])
        raise ValueError(
            f"{folder} holds a {name} with {odd} {was.get(odd)} and the config says {now[odd]}; "
            "train the stage before with these sizes, or give its own."
        )
    stage = stored.get("training", {}).get("stage")
    if made_by and stage is not None and stage not in made_by:
        raise ValueError(
            f"{folder} was made by stage {stage} and one made by {' or '.join(made_by)} is needed; "
            "give the export of that stage."
        )


def export_model(
    folder: pathlib.Path,
    source: pathlib.Path,
    dit: tuple[Params, DiTConfig],
    *,
    rollout: RolloutConfig,
    training: Mapping[str, Any],
) -> None:
    """Write a model with a new transformer and the other networks of the checkpoint `source`.

    Raises:
      FileExistsError: something is at `folder` already.
      FileNotFoundError: no checkpoint at `source`.
    """
    stored = read_config(source)
    others = {name: sizes for name, sizes in stored["networks"].items() if name in ("vae", "text")}
    params, config = dit
    document = model_document(
        {"dit": dataclasses.asdict(config), **others},
        rollout=rollout,
        training=training,
        after=lineage(source),
    )
    with creating_checkpoint(folder, document, source / TOKENIZER / TOKENIZER_FILE) as partial:
        write_network(partial, "dit", params)
        for name in others:
            shutil.copytree(source / name, partial / name)


def model_document(
    networks: Mapping[str, Any],
    *,
    training: Mapping[str, Any],
    rollout: RolloutConfig | None = None,
    after: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The config of a trained checkpoint; `after` is how those were made that it grew from.

    An autoencoder by itself has no rollout.
    """
    return {
        "networks": dict(networks),
        **({} if rollout is None else {"rollout": dataclasses.asdict(rollout)}),
        "weights": "trained",
        "training": {**training, "after": [dict(facts) for facts in after]},
    }


def lineage(folder: pathlib.Path) -> list[dict[str, Any]]:
    """How a checkpoint was made, the first stage first; nothing of one that was converted.

    Raises:
      FileNotFoundError: no checkpoint in the folder.
    """
    facts = dict(read_config(folder).get("training", {}))
    earlier = facts.pop("after", [])
    return [*earlier, facts] if facts else []


def training_facts(
    stage: str, steps: int, seed: int, scores: Scores | None = None
) -> dict[str, Any]:
    """What a checkpoint says of how it was made."""
    facts: dict[str, Any] = {"stage": stage, "steps": steps, "seed": seed}
    return facts | ({"scores": dict(scores)} if scores else {})


def _init_of(config: NetworkConfig) -> Callable[[Key[Array, ""]], Params]:
    match config:
        case DiTConfig():
            return lambda key: init_dit(key, config)
        case VAEConfig():
            return lambda key: init_vae(key, config)
        case TextEncoderConfig():
            return lambda key: init_text_encoder(key, config)
