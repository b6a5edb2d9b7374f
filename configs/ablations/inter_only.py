"""A student that is distilled from shot to shot from the start."""

import dataclasses
import pathlib

from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.stages.dmd_inter import InterShotTraining

HERE = pathlib.Path(__file__).parent

config = dataclasses.replace(
    load_config(HERE / "both.py", InterShotTraining),
    output=pathlib.Path("runs/tiny/ablations/inter_only"),
    generator=pathlib.Path("runs/tiny/causal_init/export"),
    steps=960,
    validate_every=960,
)
