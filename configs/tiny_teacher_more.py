"""The miniature's teacher again, from where it ended: small details are what it learns last.

    shotstream train configs/tiny_teacher_more.py --resume

About 35 minutes on 2 CPU cores, to a loss of 0.20.
"""

import dataclasses
import pathlib

from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.stages.teacher import TeacherTraining

BEFORE = load_config(pathlib.Path(__file__).parent / "tiny_teacher.py", TeacherTraining)

config = dataclasses.replace(
    BEFORE,
    output=pathlib.Path("runs/tiny/teacher_more"),
    start=BEFORE.output / "export",
    steps=4000,
    seed=1,
    optimizer=dataclasses.replace(BEFORE.optimizer, learning_rate=1e-3),
)
