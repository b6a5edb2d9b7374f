"""The teacher as it is, for as long as all teachers of the table are trained."""

import dataclasses
import pathlib

from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.stages.teacher import TeacherTraining

HERE = pathlib.Path(__file__).parent

config = dataclasses.replace(
    load_config(HERE.parent / "tiny_teacher.py", TeacherTraining),
    output=pathlib.Path("runs/tiny/ablations/teacher"),
    steps=1200,
    validate_every=1200,
)
