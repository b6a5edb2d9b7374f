"""What each part of the method is good for, in the miniature: the tables of the README.

    shotstream eval --table ablations

Teachers begin with the same base and are trained for 1200 steps each; distilled students begin with
the same causal student, and take 960 steps each. What ships is trained for longer.
Run `shotstream train configs/tiny_all.py --resume` first.
"""

import dataclasses
import pathlib

from shotstream_jax.evaluation.eval_options import EvalOptions
from shotstream_jax.evaluation.table import Row, Table

HERE = pathlib.Path("ablations")
STUDENT = EvalOptions(stories=120)
TEACHER = EvalOptions(stories=60, role="teacher", steps=25, guidance=3.0)


def _teacher(name: str, file: str, options: EvalOptions = TEACHER) -> Row:
    return Row(name=f"teacher, {name}", experiment=HERE / f"{file}.py", options=options)


def _student(name: str, experiment: pathlib.Path) -> Row:
    return Row(name=f"student, {name}", experiment=experiment, options=STUDENT)


config = Table(
    output=pathlib.Path("runs/tiny/ablations/judged"),
    columns={
        "prompt_accuracy": "prompt accuracy",
        "carry_over": "carry-over",
        "identity": "identity",
        "motion": "motion",
        "cut_accuracy": "cut accuracy",
    },
    prerequisites=(HERE / "intra.py",),
    rows=(
        _teacher("as it is", "teacher"),
        _teacher(
            "no context",
            "teacher_no_context",
            dataclasses.replace(TEACHER, no_context=True),
        ),
        _teacher("no jump of the rotation", "teacher_no_jump"),
        _teacher(
            "the new caption for all frames",
            "teacher_target_caption",
            dataclasses.replace(TEACHER, context_captions="target"),
        ),
        _teacher(
            "first frames only", "teacher_first", dataclasses.replace(TEACHER, policy="first")
        ),
        _teacher(
            "first and last frames", "teacher_ends", dataclasses.replace(TEACHER, policy="ends")
        ),
        _student("before distillation", pathlib.Path("tiny_causal_init.py")),
        _student("before distillation, no jump", HERE / "causal_no_jump.py"),
        _student("intra-shot, then inter-shot", HERE / "both.py"),
        _student("intra-shot only", HERE / "intra_only.py"),
        _student("inter-shot only", HERE / "inter_only.py"),
        _student("random-exit history", HERE / "both_exit.py"),
    ),
)
