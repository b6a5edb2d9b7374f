"""One step of the causal start, computed by hand: chunks at levels of their own, ends as aims."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.data.shards import Shards
from shotstream_jax.train.stages.causal_init import CausalInitTraining
from shotstream_jax.train.stages.ode_pairs import OdePairs
from tests.train.by_hand import (
    BUDGET,
    CHUNK,
    CLIP,
    FILMS,
    FRAMES,
    SHOTS,
    Run,
    assert_moved,
    assert_same,
    drawn_dropout,
    dropped,
    few_sigmas,
    mean_of,
    shot_of,
    step_keys,
    velocity,
)

# On one worker: its films and checkpoints are made once.
pytestmark = pytest.mark.xdist_group("by hand")

SEED, PAIRS_SEED, PAIRS = 2, 3, 4
CHUNKS, LEVELS = FRAMES // CHUNK, 2
SHARED = ("model", "clip", "compute")


def write_pairs(material, folder):
    """Pairs of the shots that the sampling stage draws, with trajectories of noise."""
    making = OdePairs(
        **{name: material.settings[name] for name in SHARED},
        output=folder,
        seed=PAIRS_SEED,
        samples=PAIRS,
        shard=PAIRS,
        teacher=material.export("teacher"),
        latents=material.root / "latents",
        steps=2,
    )
    builder = making.builder()
    rows = dict(builder.build(range(PAIRS)))
    trajectories = np.random.default_rng(0).normal(size=(PAIRS, LEVELS + 1, *CLIP))
    rows["trajectory"] = trajectories.astype(np.float16)
    pairs = Shards(folder, PAIRS, PAIRS)
    pairs.describe(builder.facts)
    pairs.write(0, rows)
    return rows["trajectory"].astype(np.float32)


def draw_levels(key):
    """A level for each chunk, the last of them clean; one is drawn again if all are clean."""
    level_key, chunk_key, again_key = jax.random.split(key, 3)
    levels = [int(level) for level in jax.random.randint(level_key, (CHUNKS,), 0, LEVELS + 1)]
    if all(level == LEVELS for level in levels):
        chunk = int(jax.random.randint(chunk_key, (), 0, CHUNKS))
        levels[chunk] = int(jax.random.randint(again_key, (), 0, LEVELS))
    return levels


def test_a_step_is_the_distance_of_noisy_chunks_to_the_end(material, tmp_path):
    trajectories = write_pairs(material, tmp_path / "pairs")
    experiment = CausalInitTraining(
        **material.settings,
        output=tmp_path / "run",
        seed=SEED,
        teacher=material.export("teacher"),
        pairs=tmp_path / "pairs",
        text_dropout=0.5,
    )
    run = Run(experiment)
    before = run.params["generator"]
    assert_same(before, material.dit["teacher"])
    batch, metrics = run.step(0)

    @jax.jit
    @jax.value_and_grad
    def loss(params, shot, trajectory, levels):
        of_frame = jnp.repeat(levels, CHUNK)
        sigma = jnp.asarray([*few_sigmas(), 0.0])[of_frame]
        x_t = trajectory[of_frame, jnp.arange(FRAMES)]
        told = jnp.concatenate([jnp.zeros(BUDGET), 1000 * sigma])
        said = velocity(params, shot, x_t, told, levels=(BUDGET, *[CHUNK] * CHUNKS))
        x0 = x_t - sigma[:, None, None, None] * said
        noisy = of_frame < LEVELS
        errors = jnp.square(x0 - trajectory[-1]).mean(axis=(1, 2, 3))
        return jnp.sum(errors * noisy) / jnp.sum(noisy)

    _, keys = step_keys(SEED, 0, len(batch["trajectory"]))
    samples, drawn, silent = [], [], []
    for trajectory, key in zip(batch["trajectory"], keys, strict=True):
        ((number, *_),) = np.argwhere((trajectories == trajectory).all(axis=(1, 2, 3, 4, 5)))
        target = int(np.random.default_rng([PAIRS_SEED, int(number)]).integers(SHOTS))
        dropout_key, level_key = jax.random.split(key)
        none = drawn_dropout(dropout_key, context=0.0, text=0.5)
        shot = dropped(shot_of(material, int(number) % FILMS, target), *none)
        levels = draw_levels(level_key)
        samples.append(loss(before, shot, trajectory, jnp.asarray(levels)))
        drawn.append(levels)
        silent.append(none[1])
    assert {level for levels in drawn for level in levels} == {0, 1, 2}, "draw another seed"
    assert set(silent) == {True, False}, "draw another seed"
    value, gradient = mean_of(samples)
    np.testing.assert_allclose(metrics["generator/loss"], value, rtol=1e-4)
    assert_moved(before, run.params["generator"], gradient)
