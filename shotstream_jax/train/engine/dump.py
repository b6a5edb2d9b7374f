"""What a run that diverged writes: enough to find the reason."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import optax

from shotstream_jax.train.engine.metrics import Record
from shotstream_jax.train.engine.state import TrainState
from shotstream_jax.train.losses import Batch


def write_dump(
    folder: pathlib.Path, step: int, metrics: Record, batch: Batch, state: TrainState
) -> pathlib.Path:
    """Write a step's batch (`batch.npz`), its metrics and the networks' norms (`report.json`)."""
    place = folder / f"stopped_at_{step:06d}"
    place.mkdir(exist_ok=True)
    arrays = {name: np.asarray(array) for name, array in batch.items()}
    np.savez_compressed(place / "batch.npz", allow_pickle=False, **arrays)
    report = {
        "step": step,
        "metrics": {name: repr(value) for name, value in metrics.items()},
        # The first question about a run that diverged: was it the data, or the network?
        "not_finite_in_batch": [name for name, array in arrays.items() if not _finite(array)],
        "parameter_norm": {name: _norm(tree) for name, tree in state.params.items()},
        "updates": {name: int(count) for name, count in state.updates.items()},
    }
    (place / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return place


def _finite(array: np.ndarray) -> bool:
    return not np.issubdtype(array.dtype, np.floating) or bool(np.isfinite(array).all())


def _norm(tree: Any) -> float:
    return float(jax.jit(optax.tree.norm)(tree))
