"""Every stage of the method, end to end: two steps each, a stop in between, a film at the end."""

import json
import os
import signal

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from shotstream_jax.checkpoints.manager import load_network, read_config
from shotstream_jax.checkpoints.names_dit import dit_names
from shotstream_jax.checkpoints.param_trees import build_params
from shotstream_jax.checkpoints.torch_weights import open_weights
from shotstream_jax.cli.main import main
from shotstream_jax.data import latent_films
from shotstream_jax.data.shards import ShardReader
from shotstream_jax.model import open_model
from shotstream_jax.rollout.stream import stream_story
from shotstream_jax.story import Defaults
from shotstream_jax.storyworld.captions import to_story
from shotstream_jax.storyworld.spec import sample_story
from shotstream_jax.train.engine.pipeline import is_done, run
from shotstream_jax.train.stages import ode_pairs
from tests.train import miniature
from tests.train.miniature import HEIGHT, SHOTS, STAGES, VIDEO_FRAMES, WIDTH

# On one worker: it takes minutes to train all stages, once.
pytestmark = pytest.mark.xdist_group("trained")

MAKINGS = (miniature.latents, miniature.pairs)
TRAININGS = tuple(stage for stage in STAGES if stage not in MAKINGS)


def name_of(stage) -> str:
    return stage.__name__


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Every stage, stopped after its first step and resumed."""
    root = tmp_path_factory.mktemp("miniature")
    for stage in STAGES:
        experiment = stage(root)
        assert not is_done(experiment)
        if stage in TRAININGS:
            assert run(experiment, watch=stop_at_the_first_step).ended == "stopped"
            assert not is_done(experiment)
        assert run(experiment, existing="resume").ended == "finished"
        assert is_done(experiment)
    return root


def stop_at_the_first_step(progress):
    """Ask this process to stop, as a cluster would."""
    if progress.step == 1:
        os.kill(os.getpid(), signal.SIGTERM)


def last_digest(experiment) -> int:
    """The digest of the whole state after the last step."""
    place = experiment.output / "checkpoints" / f"{experiment.steps:06d}" / "facts"
    return ocp.JsonCheckpointHandler().restore(place)["digest"]


@pytest.mark.parametrize("stage", TRAININGS, ids=name_of)
def test_stopping_and_resuming_is_not_stopping(trained, stage):
    uninterrupted = stage(trained, output=trained / f"{stage.__name__}_at_once")
    assert run(uninterrupted).ended == "finished"
    assert last_digest(uninterrupted) == last_digest(stage(trained))


@pytest.mark.parametrize(
    ("stage", "kind"),
    [(miniature.latents, latent_films.LATENT_FILMS), (miniature.pairs, ode_pairs.KIND)],
    ids=[latent_films.LATENT_FILMS, ode_pairs.KIND],
)
def test_what_is_missing_of_a_dataset_is_made_as_it_was(trained, stage, kind):
    whole = stage(trained)
    again = stage(trained, output=trained / f"{stage.__name__}_again")
    assert run(again).ended == "finished"
    (again.output / "shard_00000.array_record").unlink()
    assert not is_done(again)
    assert run(again, existing="resume").ended == "finished"
    old, new = (ShardReader(made.output, kind) for made in (whole, again))
    for index in range(len(old)):
        expected, found = old[index], new[index]
        assert expected.keys() == found.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("stage", TRAININGS, ids=name_of)
def test_a_stage_leaves_finite_losses_of_every_step(trained, stage):
    experiment = stage(trained)
    lines = (experiment.output / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert records[-1]["step"] == experiment.steps
    losses = [v for record in records for k, v in record.items() if k.endswith("/loss")]
    assert losses
    assert np.isfinite(losses).all()


def test_every_export_says_how_it_was_made(trained):
    for stage in TRAININGS[1:]:
        experiment = stage(trained)
        config = read_config(experiment.output / "export")
        assert config.weights == "trained"
        assert config.training["stage"] == experiment.STAGE
        assert set(config.networks) == {"dit", "vae", "text"}


def test_the_student_names_all_stages_before_it(trained):
    facts = read_config(trained / "dmd_inter" / "export").training
    stages = [earlier["stage"] for earlier in facts["after"]]
    assert stages == ["vae", "base", "teacher", "causal_init", "dmd_intra"]


def test_merged_adapters_change_the_generator_they_started_from(trained):
    before = load_network(trained / "dmd_intra" / "export", "dit")
    after = load_network(trained / "dmd_inter" / "export", "dit")
    kernels = [params["blocks"]["ffn"]["up"]["kernel"] for params in (before, after)]
    assert not np.array_equal(*kernels)
    np.testing.assert_array_equal(before["head"]["kernel"], after["head"]["kernel"])


def test_the_student_films_a_story_and_becomes_an_official_file(trained, tmp_path):
    checkpoint = miniature.inter(trained).output / "export"
    assert count_frames(checkpoint) == SHOTS * VIDEO_FRAMES
    official = tmp_path / "student.safetensors"
    assert main(["convert", str(checkpoint), "--to-official", str(official)]) == 0
    back = build_params(dit_names(miniature.DIT), open_weights(official))
    same = jax.tree.map(np.array_equal, load_network(checkpoint, "dit"), back)
    assert all(jax.tree.leaves(same))


def count_frames(folder) -> int:
    model = open_model(folder)
    story = to_story(sample_story(5, SHOTS), "A test", Defaults(size=(HEIGHT, WIDTH), chunks=2))
    frames = [np.asarray(piece.frames) for piece in stream_story(model.networks, story)]
    assert all(part.shape[1:] == (HEIGHT, WIDTH, 3) for part in frames)
    return sum(len(part) for part in frames)


@pytest.mark.parametrize("stage", [miniature.teacher, miniature.inter], ids=name_of)
def test_a_run_is_validated_by_films_of_its_role(trained, stage):
    folder = trained / f"{stage.__name__}_validated"
    scores = []

    def watch(progress):
        scores.append(progress.scores)

    experiment = stage(trained, output=folder, steps=1, validate_every=1, validation_stories=1)
    assert run(experiment, watch=watch).ended == "finished"
    [found] = filter(None, scores)
    assert {"prompt_accuracy", "carry_over"} <= set(found)
    assert (folder / "validation" / "step_000001.png").is_file()
