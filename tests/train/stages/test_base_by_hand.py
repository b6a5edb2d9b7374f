"""One step of the base, computed by hand: single shots, each told of its own caption."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.train.stages.base import BaseTraining
from tests.train.by_hand import (
    CAPTIONS,
    Run,
    Shot,
    assert_moved,
    bell,
    caption_number,
    drawn_dropout,
    encode,
    flow_draw,
    flow_error,
    ids_of,
    mean_of,
    sigmas,
    step_keys,
)

# On one worker: its films and checkpoints are made once.
pytestmark = pytest.mark.xdist_group("by hand")

SEED = 3


def test_a_step_is_the_weighted_flow_error_of_single_shots(material, tmp_path):
    experiment = BaseTraining(
        **material.settings,
        output=tmp_path,
        seed=SEED,
        latents=material.root / "latents",
        vae=material.export("base"),
        text_dropout=0.5,
    )
    run = Run(experiment)
    before = run.params["base"]
    # Both networks start where a gradient shows little: blocks that do nothing, a silent head.
    moved = jax.tree.map(
        lambda x, y: x + 0.3 * y, before, {"dit": material.dit["base"], "text": material.text}
    )
    run.replace(base=moved)
    moved = run.params["base"]
    batch, metrics = run.step(0)

    _, keys = step_keys(SEED, 0, len(batch["target"]))
    places = [material.found(target) for target in batch["target"]]
    dropout_keys, flow_keys = zip(*map(jax.random.split, keys), strict=True)
    silent = [drawn_dropout(key, context=0.0, text=0.5)[1] for key in dropout_keys]
    draws = [flow_draw(key) for key in flow_keys]
    assert set(silent) == {True, False}, "draw another seed: some captions must be dropped"

    @jax.jit
    @jax.value_and_grad
    def loss(params, ids, mask, silent, clip, level_weight, sigma, noise):
        own = jnp.where(silent, 0, encode(params["text"], ids, mask))
        alone = Shot(context=clip[:0], shots=jnp.asarray([0]), texts=own[None])
        return level_weight * flow_error(params["dit"], alone, clip, sigma, noise)

    samples = []
    for (film, shot), no_text, (level, noise) in zip(places, silent, draws, strict=True):
        ids, mask = ids_of(CAPTIONS[caption_number(film, shot)])
        clip = material.clips[film, shot]
        drawn = bell(level), sigmas()[level], noise
        samples.append(loss(moved, ids, mask, no_text, clip, *drawn))
    value, gradient = mean_of(samples)
    np.testing.assert_allclose(metrics["base/loss"], value, rtol=1e-4)
    assert_moved(moved, run.params["base"], gradient)
