"""Which frame reads which caption, and what dropout and guidance take away."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models.dit import encode_captions
from shotstream_jax.rollout.conditioning import (
    FIRST_SHOT,
    Conditioning,
    Dropout,
    apply_dropout,
    draw_dropout,
    negative_conditioning,
    predict_velocity,
)
from shotstream_jax.story import Defaults, Shot, Story, plan_shot

FRAMES = 3
THIRD, FIRST = "0 0 0 1 1 1 | 2 2 2", "0 0 0 0 0 0 | 0 0 0"


def drawn(rows):
    """A drawing such as `0 0 1 | 2 2` as numbers, context and target alike."""
    return [int(number) for number in rows.replace("|", " ").split()]


def captions_read(conditioning, sample):
    """The caption that each frame reads, where caption k is filled with the number k."""
    places = conditioning.caption_index(FRAMES)[sample]
    return conditioning.text[sample, places, 0, 0].astype(int).tolist()


@pytest.fixture
def third_and_first():
    """The two shots that the module draws; every caption is filled with its number."""
    slots = jnp.asarray([drawn("0 0 0 1 1 1 | 2"), drawn("0 0 0 0 0 0 | 0")], jnp.float32)
    return Conditioning(
        context=jnp.ones((2, 6, 2, 2, 4)),
        context_shots=jnp.asarray([[0, 0, 0, 1, 1, 1], [0] * 6]),
        shot=jnp.asarray([2, FIRST_SHOT]),
        text=jnp.broadcast_to(slots[..., None, None], (2, 7, 5, 8)),
    )


def assert_drawn(conditioning, sample, shots, captions):
    assert conditioning.rotary_shots(FRAMES)[sample].tolist() == drawn(shots)
    assert captions_read(conditioning, sample) == drawn(captions)


def test_every_frame_has_a_shot_and_a_caption(third_and_first):
    assert_drawn(third_and_first, 0, "0 0 0 1 1 1 | 2 2 2", THIRD)
    assert_drawn(third_and_first, 1, "0 0 0 0 0 0 | 1 1 1", FIRST)
    assert third_and_first.caption_index(FRAMES)[0].tolist() == drawn("0 1 2 3 4 5 | 6 6 6")


def test_own_text_is_the_caption_of_the_target(third_and_first):
    assert third_and_first.own_text.shape == (2, 1, 5, 8)
    assert third_and_first.own_text[:, 0, 0, 0].tolist() == [2, 0]


def test_first_shot_is_numbered_as_when_filming():
    story = Story(title="t", shots=(Shot(caption="a"),), defaults=Defaults())
    assert plan_shot(story, 0).rope_shot == FIRST_SHOT


@pytest.mark.parametrize("history", [False, True])
def test_a_negative_prompt_is_read_by_all_and_takes_history_along(third_and_first, history):
    negative = jnp.full((1, 1, 5, 8), 7.0)
    blank = negative_conditioning(third_and_first, negative, history=history)
    shots = "0 0 0 0 0 0 | 1 1 1" if history else "0 0 0 1 1 1 | 2 2 2"
    assert_drawn(blank, 0, shots, "7 7 7 7 7 7 | 7 7 7")
    np.testing.assert_array_equal(blank.text, jnp.full((2, 1, 5, 8), 7.0))
    assert blank.context.any() != history


def test_dropped_context_makes_a_first_shot_of_its_own_caption(third_and_first):
    masks = Dropout(context=jnp.asarray([True, False]), text=jnp.zeros(2, bool))
    dropped = apply_dropout(third_and_first, masks)
    assert_drawn(dropped, 0, "0 0 0 0 0 0 | 1 1 1", "2 2 2 2 2 2 | 2 2 2")
    assert_drawn(dropped, 1, "0 0 0 0 0 0 | 1 1 1", FIRST)
    assert not dropped.context[0].any()
    assert dropped.context[1].all()


def test_dropped_captions_become_zeros_or_what_is_read_instead(third_and_first):
    masks = Dropout(context=jnp.zeros(2, bool), text=jnp.asarray([True, False]))
    assert not apply_dropout(third_and_first, masks).text[0].any()
    instead = apply_dropout(third_and_first, masks, unprompted=jnp.full((1, 1, 5, 8), 7.0))
    assert (instead.text[0] == 7).all()
    np.testing.assert_array_equal(instead.text[1], third_and_first.text[1])
    np.testing.assert_array_equal(instead.context, third_and_first.context)


def test_a_shot_that_loses_both_reads_no_caption_at_all(third_and_first):
    dropped = apply_dropout(
        third_and_first, Dropout(context=jnp.ones(2, bool), text=jnp.ones(2, bool))
    )
    assert not dropped.text.any()
    assert not dropped.context.any()


def test_dropout_is_drawn_at_its_rates_and_independently():
    samples = jax.random.split(jax.random.key(0), 4000)
    many = draw_dropout(samples, context=0.2, text=0.3)
    assert float(many.context.mean()) == pytest.approx(0.2, abs=0.03)
    assert float(many.text.mean()) == pytest.approx(0.3, abs=0.03)
    assert float((many.context & many.text).mean()) == pytest.approx(0.06, abs=0.02)
    never = draw_dropout(samples, context=0.0, text=0.0)
    assert not (never.context | never.text).any()


def velocity(film, conditioning, **how):
    x_t = film.latents(1, FRAMES)
    timesteps = jnp.full((x_t.shape[0], 1), 500.0)
    return predict_velocity(film.params, film.config, conditioning, x_t, timesteps, **how)


@pytest.fixture(scope="module")
def reach(small_film):
    """How strongly each entry of `text` moves the target's velocity."""

    @jax.jit
    def of(conditioning):
        def total(text):
            return jnp.abs(velocity(small_film, dataclasses.replace(conditioning, text=text))).sum()

        return jnp.abs(jax.grad(total)(conditioning.text)).sum(axis=(2, 3))

    return of


def test_all_captions_of_the_slots_move_the_target(small_film, reach):
    assert (reach(small_film.conditioning) > 0).all()


def test_captions_are_those_of_the_slots_and_of_the_target(small_film):
    conditioning = small_film.conditioning
    as_it_is = velocity(small_film, conditioning)
    swapped = conditioning.text[:, jnp.asarray([1, 0, 2, 3])]
    moved = velocity(small_film, dataclasses.replace(conditioning, text=swapped)) != as_it_is
    # Slots 0 and 1 of the first two shots read the same caption; of the others they do not.
    assert moved.any(axis=(1, 2, 3, 4)).tolist() == [False, False, True, True]


def test_without_context_every_slot_reads_the_own_caption(small_film):
    shots = small_film.conditioning.shot.shape[0]
    everywhere = Dropout(context=jnp.ones(shots, bool), text=jnp.zeros(shots, bool))
    dropped = apply_dropout(small_film.conditioning, everywhere)
    one = dataclasses.replace(dropped, text=dropped.own_text)
    np.testing.assert_allclose(velocity(small_film, dropped), velocity(small_film, one), atol=1e-5)


def test_text_keys_may_be_computed_before(small_film):
    conditioning = small_film.conditioning
    keys = encode_captions(small_film.params, small_film.config, conditioning.text)
    np.testing.assert_allclose(
        velocity(small_film, conditioning, text_keys=keys),
        velocity(small_film, conditioning),
        atol=1e-6,
    )
