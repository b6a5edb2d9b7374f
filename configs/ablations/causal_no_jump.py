"""A causal student, before distillation, that only content tells earlier shots from its own."""

import dataclasses
import pathlib

from shotstream_jax.presets import TINY
from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.stages.causal_init import CausalInitTraining

HERE = pathlib.Path(__file__).parent

config = dataclasses.replace(
    load_config(HERE.parent / "tiny_causal_init.py", CausalInitTraining),
    output=pathlib.Path("runs/tiny/ablations/causal_no_jump"),
    dit=dataclasses.replace(TINY.dit, shot_phase=0.0),
)
