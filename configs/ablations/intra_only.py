"""A student that is distilled inside the shot alone, on true history."""

import dataclasses
import pathlib

from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.stages.dmd_intra import IntraShotTraining

HERE = pathlib.Path(__file__).parent

config = dataclasses.replace(
    load_config(HERE / "intra.py", IntraShotTraining),
    output=pathlib.Path("runs/tiny/ablations/intra_only"),
    steps=960,
    validate_every=960,
)
