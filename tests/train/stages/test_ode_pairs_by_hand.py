"""Trajectories of the teacher, followed by hand: which shot, noise, guidance and levels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.train.stages.ode_pairs import OdePairs
from tests.train.by_hand import CLIP, FILMS, SHIFT, SHOTS, shot_of, velocity

# On one worker: its films and checkpoints are made once.
pytestmark = pytest.mark.xdist_group("by hand")

SEED, STEPS, GUIDANCE = 3, 4, 3.0
NUMBERS = (0, 3, 6)
SETTINGS = ("model", "clip", "compute")


def test_trajectories_are_followed_as_by_hand(material, tmp_path):
    shared = {name: material.settings[name] for name in SETTINGS}
    making = OdePairs(
        **shared,
        output=tmp_path,
        seed=SEED,
        samples=8,
        shard=len(NUMBERS),
        teacher=material.export("teacher"),
        latents=material.root / "latents",
        steps=STEPS,
        guidance=GUIDANCE,
    )
    made = making.builder().build(NUMBERS)["trajectory"]
    params = material.dit["teacher"]
    ask = jax.jit(velocity)
    drawn = []
    for number, found in zip(NUMBERS, made, strict=True):
        film = number % FILMS
        target = int(np.random.default_rng([SEED, number]).integers(SHOTS))
        drawn.append(target)
        shot = shot_of(material, film, target)
        x_t = jax.random.normal(jax.random.fold_in(jax.random.key(SEED), number), CLIP)
        # Of four even steps of a shifted schedule, levels 1000 and 500 are the first and third.
        u = 1 - np.arange(STEPS + 1) / STEPS
        levels = SHIFT * u / (1 + (SHIFT - 1) * u)
        states = []
        for step, (sigma, after) in enumerate(itertools.pairwise(levels)):
            if step in (0, 2):
                states.append(x_t)
            said = ask(params, shot, x_t, jnp.float32(1000 * sigma))
            blank = ask(params, shot.without_prompt(), x_t, jnp.float32(1000 * sigma))
            x_t = x_t + (after - sigma) * (blank + GUIDANCE * (said - blank))
        expected = np.stack([*states, x_t])
        largest = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3 * largest)
    assert set(drawn) == {0, 1, 2}, "draw another seed"
