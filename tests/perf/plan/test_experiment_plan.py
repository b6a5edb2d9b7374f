"""Programs of experiments, compiled for chips that are not here."""

import dataclasses
import importlib.util
import json
import pathlib

import jax
import pytest

from shotstream_jax.cli.plan import PlanOptions, plan
from shotstream_jax.perf.plan.compile import plan_program
from shotstream_jax.perf.plan.experiment_plan import experiment_programs, plan_experiment
from shotstream_jax.perf.targets import find_target, training_mesh
from shotstream_jax.sharding import make_mesh
from shotstream_jax.train.stages.transformer import ComputeConfig
from tests.train import miniature

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="pip install -e .[aot] brings the compiler"
)


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "small_teacher.py"
    path.write_text(
        "import pathlib\n"
        "from tests.train import miniature\n"
        f"config = miniature.teacher(pathlib.Path({str(tmp_path)!r}), batch=4)\n"
    )
    return path


def test_every_network_that_learns_has_a_program(tmp_path):
    mesh = make_mesh(jax.devices()[:1])
    programs = experiment_programs(miniature.intra(tmp_path), mesh)
    assert programs.keys() == {"generator", "fake_score"}
    for program in programs.values():
        args_info, _ = program.lower().args_info
        assert all(leaf.donated for leaf in jax.tree.leaves(args_info[0]))
        assert {"state", "frozen", "batch"} == program.arguments.keys()
        state, _ = program.lower().out_info
        assert jax.tree.structure(state) == jax.tree.structure(program.arguments["state"])


@pytest.mark.parametrize(
    ("making", "shape"),
    [
        (miniature.latents, (6, 2, 4, 6, 4)),
        (miniature.pairs, (2, 3, 2, 4, 6, 4)),
        (lambda root: miniature.pairs(root, negative="blurred"), (2, 3, 2, 4, 6, 4)),
    ],
    ids=["latents", "pairs", "pairs with a negative prompt"],
)
def test_what_makes_a_dataset_has_a_program(tmp_path, making, shape):
    programs = experiment_programs(making(tmp_path), make_mesh(jax.devices()[:1]))
    assert programs.keys() == {"samples"}
    made = programs["samples"].lower().out_info
    assert jax.tree.leaves(made)[0].shape == shape


def test_stages_without_one_batch_are_refused(tmp_path):
    with pytest.raises(ValueError, match="VAETraining have no one shape"):
        experiment_programs(miniature.vae(tmp_path), make_mesh(jax.devices()[:1]))


@needs_compiler
def test_a_batch_must_divide_over_the_mesh(tmp_path):
    mesh = training_mesh(find_target("v5e:2x2"), fsdp=4)
    training = dataclasses.replace(miniature.teacher(tmp_path), batch=6)
    with pytest.raises(ValueError, match=r"batch of 6 .* does not divide among 4 devices"):
        experiment_programs(training, mesh)


@needs_compiler
def test_a_step_is_planned_for_a_slice_that_is_not_here(experiment, capsys):
    options = PlanOptions(experiment=experiment, target="v5e:2x2", mesh="data=2,fsdp=2", json=True)
    assert plan(options) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mesh"] == {"data": 2, "fsdp": 2}
    step = found["programs"]["teacher"]
    assert step["fits"]
    # Tiles of a chip are larger than the arrays of this miniature.
    assert step["memory"]["arguments"] >= sum(step["argument_bytes"].values())
    assert step["collectives"]


@needs_compiler
def test_a_step_attends_by_the_kernel_of_its_devices(tmp_path):
    """Forwards and backwards, each device its own heads and samples."""
    dit = dataclasses.replace(miniature.DIT, dim=256)
    compute = ComputeConfig(dtype="bfloat16", remat="full")
    model = dataclasses.replace(miniature.MODEL, dit=dit)
    training = miniature.teacher(tmp_path, batch=4, model=model, compute=compute)
    target = find_target("v5e:2x2")
    mesh = training_mesh(target, fsdp=2, tensor=2)
    assert training.compute.on(mesh, dit.head_dim).attention == "splash"
    [step] = experiment_programs(training, mesh).values()
    assert plan_program(step, target, mesh).fits
    assert "splash" in step.lower().as_text()


def test_a_file_that_is_not_there_is_named():
    options = PlanOptions(experiment=pathlib.Path("nowhere.py"))
    with pytest.raises(ValueError, match=r"There is no file nowhere\.py"):
        plan(options)


@needs_compiler
def test_a_plan_in_the_making_says_what_it_is_at(experiment, capsys):
    assert plan(PlanOptions(experiment=experiment, target="v5e:2x2")) == 0
    said = capsys.readouterr()
    assert f"teacher of {experiment} ..." in said.err
    assert "teacher" in said.out


@needs_compiler
def test_a_compiler_that_is_stopped_is_an_error_and_not_the_end(experiment):
    """As the kernel stops it when memory runs out."""
    text = experiment.read_text()
    experiment.write_text(
        "import multiprocessing, os\n"
        "if multiprocessing.parent_process() is not None:\n"
        "    os._exit(9)\n" + text
    )
    with pytest.raises(ValueError, match=r"compiler of teacher in .*small_teacher\.py was stopped"):
        plan_experiment(experiment, "v5e:2x2")
