"""A teacher that is never shown an earlier shot."""

import dataclasses
import pathlib

from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.stages.teacher import TeacherTraining

HERE = pathlib.Path(__file__).parent

config = dataclasses.replace(
    load_config(HERE / "teacher.py", TeacherTraining),
    output=pathlib.Path("runs/tiny/ablations/teacher_no_context"),
    context_dropout=1.0,
)
