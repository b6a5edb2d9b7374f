import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models.configs import WAN_1_3B
from shotstream_jax.models.dit import init_dit
from shotstream_jax.schedule import FlowNoise, FlowSchedule, draw_flow_noise
from shotstream_jax.train.objectives.flow_matching import Clip, teacher_loss, trainable_mask

SCHEDULE = FlowSchedule()
FRAMES = 3


@pytest.fixture(scope="module")
def clip(film_of_four):
    return Clip(conditioning=film_of_four.conditioning, latents=film_of_four.latents(1, FRAMES))


@pytest.fixture(scope="module")
def loss(film_of_four):
    loss = functools.partial(teacher_loss, config=film_of_four.config, schedule=SCHEDULE)
    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.fixture
def draw(clip):
    shape = clip.latents.shape
    timesteps = jnp.asarray(SCHEDULE.timesteps[[0, 300, 700, 999]])
    return FlowNoise(timesteps=timesteps, noise=jax.random.normal(jax.random.key(2), shape))


def test_samples_are_weighted_by_their_own_timesteps(film_of_four, clip, draw, loss):
    (value, errors), _ = loss(film_of_four.params, clip=clip, draw=draw)
    weights = SCHEDULE.weights[[0, 300, 700, 999]]
    assert weights[0] == 0
    assert (errors > 0).all()
    assert float(value) == pytest.approx(float((weights * errors).mean()), rel=1e-5)


def test_samples_of_a_batch_do_not_see_one_another(film_of_four, clip, draw, loss):
    (_, errors), _ = loss(film_of_four.params, clip=clip, draw=draw)
    others = dataclasses.replace(clip, latents=clip.latents.at[2].multiply(-1))
    (_, moved), _ = loss(film_of_four.params, clip=others, draw=draw)
    assert (moved != errors).tolist() == [False, False, True, False]


def test_gradient_reaches_every_parameter_the_captions_included(film_of_four, clip, draw, loss):
    _, gradients = loss(film_of_four.params, clip=clip, draw=draw)
    untouched = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
        if not leaf.any()
    ]
    assert untouched == []


def test_a_sample_draws_from_the_table_and_from_its_own_key_alone():
    samples, table = jax.random.split(jax.random.key(0), 100), SCHEDULE.timesteps[:5]
    draw_jit = jax.jit(functools.partial(draw_flow_noise, shape=(2, 3, 3, 4), timesteps=table))
    draw = draw_jit(samples)
    assert set(np.asarray(draw.timesteps).tolist()) == set(table.tolist())
    assert draw.noise.shape == (100, 2, 3, 3, 4)
    alone = draw_jit(samples[7:8])
    assert alone.timesteps[0] == draw.timesteps[7]
    np.testing.assert_array_equal(alone.noise[0], draw.noise[7])


def test_only_the_self_attention_of_the_released_teacher_learns():
    params = jax.eval_shape(lambda key: init_dit(key, WAN_1_3B), jax.random.key(0))
    mask = trainable_mask(params, "self_attention")
    learning = jax.tree.map(lambda leaf, learns: learns * math.prod(leaf.shape), params, mask)
    assert sum(jax.tree.leaves(learning)) == 283_392_000
    everything = jax.tree.map(lambda leaf: math.prod(leaf.shape), params)
    assert sum(jax.tree.leaves(everything)) == 1_418_996_800
    assert all(jax.tree.leaves(trainable_mask(params, "all")))
