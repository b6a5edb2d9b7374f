import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.rollout.conditioning import (
    FIRST_SHOT,
    Conditioning,
    Dropout,
    draw_dropout,
    drop,
    predict_velocity,
    without_prompt,
)
from shotstream_jax.story import Defaults, Shot, Story, plan_shot

FRAMES = 3


def drawn(rows):
    """A drawing such as `0 0 1 | 2 2` as numbers, context and target alike."""
    return [int(number) for number in rows.replace("|", " ").split()]


@pytest.fixture
def third_and_first(film_of_four):
    """The two shots that the module draws."""
    return Conditioning(
        context=jnp.ones((2, 6, 2, 2, 4)),
        context_shots=jnp.asarray([[0, 0, 0, 1, 1, 1], [0] * 6]),
        context_captions=jnp.asarray([[0, 0, 0, 1, 1, 1], [0] * 6]),
        shot=jnp.asarray([2, FIRST_SHOT]),
        caption=jnp.asarray([2, 0]),
        text=jnp.ones((2, 3, 5, 8)),
    )


def assert_drawn(given, sample, shots, captions):
    assert given.shots(FRAMES)[sample].tolist() == drawn(shots)
    assert given.captions(FRAMES)[sample].tolist() == drawn(captions)


def test_every_frame_has_a_shot_and_a_caption(third_and_first):
    assert_drawn(third_and_first, 0, "0 0 0 1 1 1 | 2 2 2", "0 0 0 1 1 1 | 2 2 2")
    assert_drawn(third_and_first, 1, "0 0 0 0 0 0 | 1 1 1", "0 0 0 0 0 0 | 0 0 0")


def test_first_shot_is_numbered_as_when_filming():
    story = Story(title="t", shots=(Shot(caption="a"),), defaults=Defaults())
    assert plan_shot(story, 0).rope_shot == FIRST_SHOT


@pytest.mark.parametrize("history", [False, True])
def test_a_negative_prompt_is_read_by_all_and_takes_history_along(third_and_first, history):
    negative = jnp.full((1, 1, 5, 8), 7.0)
    blank = without_prompt(third_and_first, negative, history=history)
    np.testing.assert_array_equal(blank.text, jnp.full((2, 1, 5, 8), 7.0))
    assert blank.context.any() != history
    assert blank.shots(FRAMES)[0].tolist() == drawn(
        "0 0 0 0 0 0 | 1 1 1" if history else "0 0 0 1 1 1 | 2 2 2"
    )


def test_dropped_context_makes_a_first_shot_of_its_own_caption(third_and_first):
    masks = Dropout(context=jnp.asarray([True, False]), text=jnp.zeros(2, bool))
    dropped = drop(third_and_first, masks)
    assert_drawn(dropped, 0, "0 0 0 0 0 0 | 1 1 1", "2 2 2 2 2 2 | 2 2 2")
    assert_drawn(dropped, 1, "0 0 0 0 0 0 | 1 1 1", "0 0 0 0 0 0 | 0 0 0")
    assert not dropped.context[0].any()
    assert dropped.context[1].all()
    np.testing.assert_array_equal(dropped.text, third_and_first.text)


def test_dropped_captions_become_zeros_or_what_is_read_instead(third_and_first):
    masks = Dropout(context=jnp.zeros(2, bool), text=jnp.asarray([False, True]))
    assert not drop(third_and_first, masks).text[1].any()
    instead = drop(third_and_first, masks, unprompted=jnp.full((1, 1, 5, 8), 7.0))
    assert (instead.text[1] == 7).all()
    np.testing.assert_array_equal(instead.text[0], third_and_first.text[0])
    np.testing.assert_array_equal(instead.context, third_and_first.context)


def test_dropout_is_drawn_at_its_rates_and_independently():
    samples = jax.random.split(jax.random.key(0), 4000)
    many = draw_dropout(samples, context=0.2, text=0.3)
    assert float(many.context.mean()) == pytest.approx(0.2, abs=0.03)
    assert float(many.text.mean()) == pytest.approx(0.3, abs=0.03)
    assert float((many.context & many.text).mean()) == pytest.approx(0.06, abs=0.02)
    never = draw_dropout(samples, context=0.0, text=0.0)
    assert not (never.context | never.text).any()


@pytest.fixture(scope="module")
def reach(film_of_four):
    """How strongly each caption of each shot moves the target's velocity."""
    x_t = film_of_four.latents(1, FRAMES)

    @jax.jit
    def of(given):
        def total(text):
            told = dataclasses.replace(given, text=text)
            network = film_of_four.params, film_of_four.config
            timesteps = jnp.full((x_t.shape[0], 1), 500.0)
            return jnp.abs(predict_velocity(*network, told, x_t, timesteps)).sum()

        return jnp.abs(jax.grad(total)(given.text)).sum(axis=(2, 3))

    return of


def test_frames_read_their_own_captions_whatever_the_rotation_calls_their_shot(film_of_four, reach):
    given = film_of_four.given
    reads = [
        {*map(int, context), int(own)}
        for context, own in zip(given.context_captions, given.caption, strict=True)
    ]
    assert reads == [{0}, {0, 1}, {0, 1, 2}, {0, 1, 2, 3}]
    assert [set(np.flatnonzero(row)) for row in reach(given)] == reads


def test_without_context_a_shot_depends_on_its_own_caption_alone(film_of_four, reach):
    shots = film_of_four.given.caption.shape[0]
    everywhere = Dropout(context=jnp.ones(shots, bool), text=jnp.zeros(shots, bool))
    moved = reach(drop(film_of_four.given, everywhere))
    assert [set(np.flatnonzero(row)) for row in moved] == [{i} for i in range(shots)]


def test_own_text_is_the_caption_of_the_target(film_of_four):
    given = film_of_four.given
    for shot, caption in enumerate(given.caption):
        np.testing.assert_array_equal(given.own_text[shot, 0], given.text[shot, caption])
