"""Every stage of the method, end to end: two steps each, stopped in between, and a film at the end."""

import json

import jax
import numpy as np
import pytest
from tests.train.miniature import SHOTS, STAGES, inter

from shotstream_jax.model import open_model
from shotstream_jax.rollout.stream import stream_story
from shotstream_jax.data.world.captions import to_story
from shotstream_jax.data.world.spec import sample_story
from shotstream_jax.story import Defaults
from shotstream_jax.train.making import Making
from shotstream_jax.train.pipeline import is_done, run


def train_to_the_end(root, stage):
    """One step, a stop, and on to the end."""
    experiment = stage(root)
    assert not is_done(experiment)
    if not isinstance(experiment, Making):
        assert run(stage(root, steps=1)).ended == "finished"
    outcome = run(experiment, existing="resume")
    assert outcome.ended == "finished"
    assert is_done(experiment)
    return outcome


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("miniature")
    for stage in STAGES:
        train_to_the_end(root, stage)
    return root


def test_every_stage_leaves_its_metrics(trained):
    for stage in STAGES:
        experiment = stage(trained)
        if isinstance(experiment, Making):
            continue
        lines = (experiment.output / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        assert [record["step"] for record in records][-1] == experiment.steps
        losses = [v for record in records for k, v in record.items() if k.endswith("/loss")]
        assert losses
        assert np.isfinite(losses).all()


def test_the_student_films_a_story(trained):
    model = open_model(inter(trained).output / "export")
    assert model.weights == "trained"
    spec = sample_story(5, SHOTS)
    story = to_story(spec, "A test", Defaults(size=(32, 48), chunks=2, fps=8))
    pieces = list(stream_story(model.networks, story))
    frames = [np.asarray(piece.frames) for piece in pieces]
    assert sum(len(part) for part in frames) == SHOTS * 5
    assert all(part.shape[1:] == (32, 48, 3) for part in frames)
