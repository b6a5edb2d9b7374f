"""A student whose history is what its chunks were when they were trained, as in the reference."""

import dataclasses
import pathlib

from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.stages.dmd_inter import InterShotTraining

HERE = pathlib.Path(__file__).parent

config = dataclasses.replace(
    load_config(HERE / "both.py", InterShotTraining),
    output=pathlib.Path("runs/tiny/ablations/both_exit"),
    history="exit",
)
