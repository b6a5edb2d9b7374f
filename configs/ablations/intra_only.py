"""A student that is distilled inside the shot alone, on true history."""

import dataclasses
import pathlib

from shotstream_jax.train.dmd_training import IntraShotTraining
from shotstream_jax.train.experiment import load_config

HERE = pathlib.Path(__file__).parent

config = dataclasses.replace(
    load_config(HERE / "intra.py", IntraShotTraining),
    output=pathlib.Path("runs/tiny/ablations/intra_only"),
    steps=960,
    validate_every=960,
)
