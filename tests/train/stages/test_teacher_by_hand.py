"""One step of the teacher, computed by hand: the next shot, beside the frames that it sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.train.stages.teacher import TeacherTraining
from tests.train.by_hand import (
    Run,
    assert_moved,
    assert_same,
    bell,
    drawn_dropout,
    dropped,
    flow_draw,
    flow_error,
    mean_of,
    shot_of,
    sigmas,
    step_keys,
)

# On one worker: its films and checkpoints are made once.
pytestmark = pytest.mark.xdist_group("by hand")

SEED = 5


@pytest.mark.parametrize("trainable", ["all", "self_attention"])
def test_a_step_is_the_weighted_flow_error_of_shots_with_their_history(
    material, tmp_path, trainable
):
    experiment = TeacherTraining(
        **material.settings,
        output=tmp_path,
        seed=SEED,
        start=material.export("base"),
        latents=material.root / "latents",
        trainable=trainable,
        context_dropout=0.4,
        text_dropout=0.4,
    )
    run = Run(experiment)
    before = run.params["teacher"]
    assert_same(before, material.dit["base"])
    batch, metrics = run.step(0)

    _, keys = step_keys(SEED, 0, len(batch["target"]))
    places = [material.found(target) for target in batch["target"]]
    dropout_keys, flow_keys = zip(*map(jax.random.split, keys), strict=True)
    gone = [drawn_dropout(key, context=0.4, text=0.4) for key in dropout_keys]
    draws = [flow_draw(key) for key in flow_keys]
    later = [none for (_, shot), none in zip(places, gone, strict=True) if shot > 0]
    assert {(False, False), (True, False)} <= set(later), "draw another seed"
    assert any(no_text for _, no_text in gone), "draw another seed"

    @jax.jit
    @jax.value_and_grad
    def loss(params, shot, clip, level_weight, sigma, noise):
        return level_weight * flow_error(params, shot, clip, sigma, noise)

    samples = []
    for (film, shot), none, (level, noise) in zip(places, gone, draws, strict=True):
        seen = dropped(shot_of(material, film, shot), *none)
        drawn = bell(level), sigmas()[level], noise
        samples.append(loss(before, seen, material.clips[film, shot], *drawn))
    value, gradient = mean_of(samples)
    np.testing.assert_allclose(metrics["teacher/loss"], value, rtol=1e-4)
    if trainable == "self_attention":
        still = jax.tree.map(jnp.zeros_like, gradient)
        learns = {"self_attention": gradient["blocks"]["self_attention"]}
        gradient = {**still, "blocks": {**still["blocks"], **learns}}
    assert_moved(before, run.params["teacher"], gradient)
