"""The first half of every student that is distilled inside the shot first."""

import dataclasses
import pathlib

from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.stages.dmd_intra import IntraShotTraining

HERE = pathlib.Path(__file__).parent

config = dataclasses.replace(
    load_config(HERE.parent / "tiny_dmd_intra.py", IntraShotTraining),
    output=pathlib.Path("runs/tiny/ablations/intra"),
    steps=480,
    validate_every=480,
)
