"""Recorded outputs of the public implementation, wherever they were recorded."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.checkpoints.names_dit import dit_names
from shotstream_jax.checkpoints.param_trees import build_params
from shotstream_jax.checkpoints.torch_weights import open_weights
from shotstream_jax.models.configs import DiTConfig

RELATIVE = 1e-4
"""Agreement asked of one float32 network call, relative to the largest recorded value."""

RELATIVE_FILM = 1e-3
"""Agreement asked of a whole autoregressive film, or of gradients through one."""


class Golden:
    """The folder of recordings: arrays, weights and sizes, nothing assumed about any of them."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def arrays(self, name: str) -> Mapping[str, np.ndarray]:
        return np.load(self.folder / f"{name}.npz")

    def sizes(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / f"{name}_config.json").read_text())

    def path(self, name: str) -> pathlib.Path:
        return self.folder / name


@pytest.fixture(scope="session")
def golden() -> Golden:
    here = pathlib.Path(__file__).parent
    return Golden(pathlib.Path(os.environ.get("SHOTSTREAM_GOLDEN_DIR", here)))


def relative_error(actual: Any, expected: np.ndarray) -> float:
    """Largest difference, in units of the largest expected magnitude."""
    difference = np.abs(np.asarray(actual, np.float64) - np.asarray(expected, np.float64))
    return float(difference.max() / np.abs(expected).max())


@pytest.fixture(scope="session")
def agree():
    """Assert that arrays agree within a relative tolerance, and say by how much if not."""

    def check(actual: Any, expected: np.ndarray, relative: float = RELATIVE) -> None:
        assert np.shape(actual) == np.shape(expected), (np.shape(actual), np.shape(expected))
        error = relative_error(actual, expected)
        assert error <= relative, f"relative error {error:.2e} is above {relative:.0e}"

    return check


@pytest.fixture(scope="session")
def film_tolerance() -> float:
    return RELATIVE_FILM


@pytest.fixture(scope="session")
def dit_config(golden: Golden) -> DiTConfig:
    sizes = golden.sizes("dit")
    return DiTConfig(
        dim=sizes["dim"],
        layers=sizes["num_layers"],
        heads=sizes["num_heads"],
        ffn_dim=sizes["ffn_dim"],
        freq_dim=sizes["freq_dim"],
        text_dim=sizes["text_dim"],
        text_tokens=sizes["text_len"],
        latent_channels=sizes["in_dim"],
    )


@pytest.fixture(scope="session")
def load_dit(golden: Golden, dit_config: DiTConfig):
    """Parameters of a recorded transformer, by file name."""

    def load(name: str) -> Any:
        tensors = open_weights(golden.path(name))
        return jax.tree.map(jnp.asarray, build_params(dit_names(dit_config), tensors))

    return load


@pytest.fixture(scope="session")
def dit_params(load_dit) -> Any:
    return load_dit("dit.safetensors")
