"""A generator's and a critic's step inside a shot, computed by hand: which network does what."""

import jax
import numpy as np
import pytest

from shotstream_jax.train.objectives.dmd import DMDConfig
from shotstream_jax.train.stages.dmd_intra import IntraShotTraining
from tests.train.by_hand import (
    SHIFT,
    Run,
    assert_moved,
    assert_same,
    drawn_dropout,
    dropped,
    mean_of,
    shot_of,
    step_keys,
)
from tests.train.stages.distillation_by_hand import (
    GUIDANCE,
    critic_sample,
    draws_of,
    exit_step_of,
    generator_sample,
)

# On one worker: its films and checkpoints are made once.
pytestmark = pytest.mark.xdist_group("by hand")

SEED = 5


def samples_of(material, batch, step):
    """Of every sample: the shot as it is seen, and what is drawn for it; and the exit step."""
    shared, keys = step_keys(SEED, step, len(batch["target"]))
    samples, lost = [], []
    for target, key in zip(batch["target"], keys, strict=True):
        dropout_key, draws = draws_of(key)
        film, shot = material.found(target)
        none = drawn_dropout(dropout_key, context=0.5, text=0.0)
        samples.append((dropped(shot_of(material, film, shot), *none), draws))
        lost.append((shot > 0, none[0]))
    assert {(True, True), (True, False)} <= set(lost), "draw another seed"
    return samples, exit_step_of(shared)


def test_generator_and_critic_learn_as_by_hand(material, tmp_path):
    experiment = IntraShotTraining(
        **material.settings,
        output=tmp_path,
        seed=SEED,
        generator=material.export("causal_init"),
        teacher=material.export("teacher"),
        latents=material.root / "latents",
        critic_optimizer=material.settings["optimizer"],
        dmd=DMDConfig(shift=SHIFT, guidance=GUIDANCE),
        context_dropout=0.5,
    )
    run = Run(experiment)
    turns = ["G" if run.stage.network_for_step(step) == "generator" else "C" for step in range(13)]
    assert "".join(turns) == "GCCCCCGCCCCCG"
    assert_same(run.params["generator"], material.dit["causal_init"])
    assert_same(run.params["fake_score"], material.dit["teacher"])
    # The critic starts as the teacher; only once it has moved do the two scores differ.
    run.replace(fake_score=material.dit["base"])

    start = run.params
    batch, metrics = run.step(0)
    samples, exit_step = samples_of(material, batch, 0)
    networks = start["generator"], start["fake_score"], material.dit["teacher"]
    value, gradient, _ = mean_of(
        [
            generator_sample(shot, networks, draws, exit_step, finished=False)
            for shot, draws in samples
        ]
    )
    np.testing.assert_allclose(metrics["generator/loss"], value, rtol=1e-3)
    assert_moved(start["generator"], run.params["generator"], gradient, share=5e-3)
    assert_same(start["fake_score"], run.params["fake_score"])

    run.replace(generator=material.dit["dmd_intra"])
    start = run.params
    batch, metrics = run.step(1)
    samples, exit_step = samples_of(material, batch, 1)
    networks = start["generator"], start["fake_score"]
    value, gradient, _ = mean_of(
        [critic_sample(shot, networks, draws, exit_step, finished=False) for shot, draws in samples]
    )
    np.testing.assert_allclose(metrics["fake_score/loss"], value, rtol=1e-3)
    assert_moved(start["fake_score"], run.params["fake_score"], gradient, share=5e-3)
    assert_same(start["generator"], run.params["generator"])
    assert not jax.tree.leaves(run.state.carry)
