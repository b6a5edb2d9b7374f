"""Every experiment file is whole, and the full-size steps can be lowered without any weights."""

import ast
import pathlib

import jax
import jax.numpy as jnp
import pytest

from shotstream_jax.cli.comparison_table import Table
from shotstream_jax.cli.train import load_experiment
from shotstream_jax.perf.plan.experiment_plan import experiment_programs
from shotstream_jax.presets import TINY
from shotstream_jax.sharding import make_mesh
from shotstream_jax.train.engine.dataset_job import DatasetJob
from shotstream_jax.train.engine.experiment import load_config
from shotstream_jax.train.engine.pipeline import Pipeline
from shotstream_jax.train.engine.stage import Training
from shotstream_jax.train.stages.teacher import TeacherTraining
from shotstream_jax.train.stages.transformer import TransformerTraining

FOLDER = pathlib.Path(__file__).parents[1] / "configs"
ABLATIONS = FOLDER / "ablations.py"
CONFIGS = sorted(set(FOLDER.glob("*.py")) - {ABLATIONS})
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
        assert needs(stage) <= {path for out in made for path in (out, out / "export")}
        if isinstance(stage, TransformerTraining):
            assert stage.model == TINY
        made.append(stage.output)


def needs(stage) -> set[pathlib.Path]:
    """Folders that a stage begins with."""
    settings = vars(stage).items()
    return {v for name, v in settings if isinstance(v, pathlib.Path) and name != "output"}


def test_ablations_begin_with_the_miniature_and_differ_from_one_another():
    whole = load_experiment(FOLDER / "tiny_all.py")
    made = [load_experiment(FOLDER / stage).output for stage in whole.stages]
    table = load_config(ABLATIONS, Table)
    rows = [load_experiment(FOLDER / row.experiment) for row in table.rows]
    made += [load_experiment(FOLDER / path).output for path in table.prerequisites]
    for row in rows:
        assert needs(row) <= {path for out in made for path in (out, out / "export")}
    settings = [{**vars(row), "output": None} for row in rows]
    for index, one in enumerate(settings):
        assert one not in settings[:index]
    assert len({row.output for row in rows}) == len(rows)
    assert {row.steps for row in rows if isinstance(row, TeacherTraining)} == {1200}
    files = {path.relative_to(FOLDER) for path in (FOLDER / "ablations").glob("*.py")}
    used = {row.experiment for row in table.rows} | set(table.prerequisites)
    assert files == {path for path in used if path.parent.name == "ablations"}


@pytest.mark.parametrize("path", STEPS, ids=lambda path: path.stem)
def test_a_full_size_step_lowers_without_weights(path):
    experiment = load_experiment(path)
    assert isinstance(experiment, Training | DatasetJob)
    for program in experiment_programs(experiment, make_mesh(jax.devices()[:1])).values():
        made = program.lower().out_info
        if isinstance(experiment, DatasetJob):
            assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}
            continue
        state, metrics = made
        assert jax.tree.structure(state) == jax.tree.structure(program.arguments["state"])
        assert all(metric.dtype in (jnp.float32, jnp.int32) for metric in metrics.values())
