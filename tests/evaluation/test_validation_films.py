"""Validation during training: the films of each role, their scores and their sheet."""

import dataclasses

import pytest
from PIL import Image

from shotstream_jax.evaluation.films import draw_stories
from shotstream_jax.evaluation.generators import bind_generator
from shotstream_jax.evaluation.passes import run_passes
from shotstream_jax.evaluation.validation_films import (
    TEACHER_STEPS,
    ValidationFilms,
    validate_films,
)
from shotstream_jax.rollout.teacher import SampleConfig


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_validation_is_a_small_evaluation_of_its_own_split(networks, setup, role, tmp_path):
    films = ValidationFilms(role=role, setup=setup, stories=1, guidance=1.0)
    scores = validate_films(networks, films, tmp_path / "step.png", title="after step 3")
    with Image.open(tmp_path / "step.png") as sheet:
        assert sheet.format == "PNG"
    # Carry-over is that after a ground-truth shot, everything else is of the model's own films.
    sample = SampleConfig(steps=TEACHER_STEPS, shift=networks.config.rollout.shift, guidance=1.0)
    bind = bind_generator(role, networks, sample=sample)
    stories = draw_stories(1, (3,), split="validation")
    passes = {"own": setup, "given": dataclasses.replace(setup, reference_shots=1)}
    metrics = run_passes(bind, passes, stories).metrics
    assert scores["prompt_accuracy"] == metrics["prompt_accuracy"].value
    assert scores["carry_over"] == metrics["carry_over"].value
    assert scores["carry_over_own"] == metrics["carry_over_own"].value
    assert not any(name.startswith(("motion", "oracle")) for name in scores)
