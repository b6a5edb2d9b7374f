"""A teacher that nothing but content tells where one shot ends and another begins."""

import dataclasses
import pathlib

from shotstream_jax.presets import TINY
from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.stages.teacher import TeacherTraining

HERE = pathlib.Path(__file__).parent

config = dataclasses.replace(
    load_config(HERE / "teacher.py", TeacherTraining),
    output=pathlib.Path("runs/tiny/ablations/teacher_no_jump"),
    dit=dataclasses.replace(TINY.dit, shot_phase=0.0),
)
