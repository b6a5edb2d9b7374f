"""What each part of the method is good for, in the miniature: the tables of the README.

    shotstream eval --table ablations

Teachers begin with the same base and are trained for 1200 steps each; students begin with the same
causal student, and take 960 steps of distillation each. What ships is trained for longer.
Run `shotstream train configs/tiny_all.py --resume` first.
"""

import dataclasses
import pathlib

from shotstream_jax.cli.evaluate_options import Evaluate
from shotstream_jax.cli.table import Row, Table

HERE = pathlib.Path("ablations")
STUDENT = Evaluate(stories=60)
TEACHER = Evaluate(stories=60, role="teacher", steps=25, guidance=3.0)


def _teacher(name: str, file: str, judged: Evaluate = TEACHER) -> Row:
    return Row(name=f"teacher, {name}", experiment=HERE / f"{file}.py", judged=judged)


def _student(name: str, file: str) -> Row:
    return Row(name=f"student, {name}", experiment=HERE / f"{file}.py", judged=STUDENT)


config = Table(
    output=pathlib.Path("runs/tiny/ablations/judged"),
    columns={
        "prompt_accuracy": "prompt accuracy",
        "carry_over": "carry-over",
        "identity": "identity",
        "cut_accuracy": "cut accuracy",
        "drift": "drift",
    },
    before=(HERE / "intra.py",),
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
        _student("intra-shot, then inter-shot", "both"),
        _student("intra-shot only", "intra_only"),
        _student("inter-shot only", "inter_only"),
        _student("random-exit history", "both_exit"),
    ),
)
