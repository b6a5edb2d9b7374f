"""Every experiment file is whole, and the full-size steps can be lowered without any weights."""

import ast
import pathlib

import jax
import jax.numpy as jnp
import pytest

from shotstream_jax.cli.train import load_experiment
from shotstream_jax.config import TINY
from shotstream_jax.sharding import make_mesh
from shotstream_jax.train.making import Making
from shotstream_jax.train.pipeline import Pipeline
from shotstream_jax.train.programs import build_programs
from shotstream_jax.train.transformer import TransformerTraining

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))
STEPS = [path for path in CONFIGS if path.stem.startswith("wan_")]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_its_docstring_tells_its_command(path):
    said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    assert f"shotstream train configs/{path.name}" in said
    load_experiment(path)


def test_the_whole_miniature_is_all_its_stages_in_order():
    tiny = next(path for path in CONFIGS if path.stem == "tiny_all")
    whole = load_experiment(tiny)
    assert isinstance(whole, Pipeline)
    stages = [load_experiment(tiny.parent / stage) for stage in whole.stages]
    made = []
    for stage in stages:
        assert not isinstance(stage, Pipeline)
        if isinstance(stage, Making | TransformerTraining):
            needed = {
                value
                for name, value in vars(stage).items()
                if isinstance(value, pathlib.Path) and name != "output"
            }
            assert all(any(path in (out, out / "export") for out in made) for path in needed)
        if isinstance(stage, TransformerTraining):
            assert (stage.dit, stage.text, stage.rollout) == (TINY.dit, TINY.text, TINY.rollout)
        made.append(stage.output)


@pytest.mark.parametrize("path", STEPS, ids=lambda path: path.stem)
def test_a_full_size_step_lowers_without_weights(path):
    training = load_experiment(path)
    if isinstance(training, Making):
        return
    assert isinstance(training, TransformerTraining)
    stage = training.stage()
    mesh = make_mesh(jax.devices()[:1])
    programs = build_programs(stage, training, mesh)
    frozen = {name: weights.shapes for name, weights in stage.frozen.items()}
    for step in programs.steps.values():
        lowered = step.lower(programs.shapes, frozen, stage.batch_shapes)
        state, metrics = lowered.out_info
        assert jax.tree.structure(state) == jax.tree.structure(programs.shapes)
        assert all(metric.dtype in (jnp.float32, jnp.int32) for metric in metrics.values())
