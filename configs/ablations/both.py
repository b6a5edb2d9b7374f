"""A student that is distilled inside the shot and then from shot to shot, as all that ship."""

import dataclasses
import pathlib

from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.stages.dmd_inter import InterShotTraining

HERE = pathlib.Path(__file__).parent

config = dataclasses.replace(
    load_config(HERE.parent / "tiny_dmd_inter.py", InterShotTraining),
    output=pathlib.Path("runs/tiny/ablations/both"),
    generator=pathlib.Path("runs/tiny/ablations/intra/export"),
    steps=480,
    validate_every=480,
)
