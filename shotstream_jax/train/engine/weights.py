"""Checkpoints between stages: what a stage starts from, and what it leaves for the next.

A stage's settings hold all sizes, and weights are read only when it begins: programs can be lowered
without a checkpoint. What it leaves is a whole model; networks that it did not train are copied.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from shotstream_jax.checkpoints.manager import (
    TOKENIZER,
    creating_checkpoint,
    load_network,
    read_config,
    write_network,
)
from shotstream_jax.data.tokenizer import TOKENIZER_FILE
from shotstream_jax.model_config import CheckpointConfig, ModelConfig, NetworkConfig
from shotstream_jax.models.configs import DiTConfig, TextEncoderConfig, VAEConfig
from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.text_encoder import init_text_encoder
from shotstream_jax.models.vae import init_vae
from shotstream_jax.train.engine.stage import Scores, Weights
from shotstream_jax.typing import Array, Key, Params


def measured_vae(folder: pathlib.Path, sizes: VAEConfig) -> VAEConfig:
    """An autoencoder of these sizes with the statistics of latents that its checkpoint holds.

    Where there is no checkpoint the sizes are as they were: programs are lowered without one, and
    a stage that runs refuses when it loads.

    Raises:
      ValueError: a damaged checkpoint, or one without an autoencoder or with another.
    """
    try:
        stored = read_config(folder).network("vae")
    except FileNotFoundError:
        return sizes
    # Settings hold no statistics, which are known only after training: the checkpoint's are no
    # difference of sizes.
    if stored.latent_channels == sizes.latent_channels:
        sizes = dataclasses.replace(
            sizes, latent_mean=stored.latent_mean, latent_std=stored.latent_std
        )
    refuse_other_sizes(folder, "vae", stored, sizes)
    return sizes


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

    # Shapes from an abstract initialisation: the definition of the network is their one source.
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
    found = stored.network(name)
    if isinstance(found, DiTConfig) and isinstance(config, DiTConfig):
        # Weights of any phase can be trained further with another.
        found = dataclasses.replace(found, shot_phase=config.shot_phase)
    refuse_other_sizes(folder, name, found, config)
    stage = stored.training.get("stage")
    if made_by and stage is not None and stage not in made_by:
        raise ValueError(
            f"{folder} was made by stage {stage} and one made by {' or '.join(made_by)} is needed; "
            "give the export of that stage."
        )


def refuse_other_sizes(
    folder: pathlib.Path, name: str, found: NetworkConfig, wanted: NetworkConfig
) -> None:
    """Raises: ValueError: networks of different sizes, with the first size that differs."""
    if found == wanted:
        return
    was, now = dataclasses.asdict(found), dataclasses.asdict(wanted)
    odd = next(key for key in now if was.get(key) != now[key])
    raise ValueError(
        f"{folder} holds a {name} with {odd} {was.get(odd)} and the config says {now[odd]}; "
        "train the stage before with these sizes, or give its own."
    )


def export_model(
    folder: pathlib.Path,
    source: pathlib.Path,
    params: Params,
    model: ModelConfig,
    *,
    training: Mapping[str, Any],
) -> None:
    """Write a model with a new transformer and the other networks of the checkpoint `source`.

    Raises:
      FileExistsError: something is at `folder` already.
      FileNotFoundError: no checkpoint at `source`.
    """
    stored = read_config(source)
    others = {name: sizes for name, sizes in stored.networks.items() if name in ("vae", "text")}
    config = CheckpointConfig(
        networks={"dit": model.dit, **others},
        rollout=model.rollout,
        weights="trained",
        training={**training, "after": lineage(source)},
    )
    with creating_checkpoint(folder, config, source / TOKENIZER / TOKENIZER_FILE) as partial:
        write_network(partial, "dit", params)
        # Copied file by file and not loaded: what was not trained stays bit for bit the same.
        for name in others:
            shutil.copytree(source / name, partial / name)


def lineage(folder: pathlib.Path) -> list[dict[str, Any]]:
    """How a checkpoint was made, the first stage first; nothing of one that was converted.

    Raises:
      FileNotFoundError: no checkpoint in the folder.
    """
    facts = dict(read_config(folder).training)
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
