"""Filming is a pure function of a state that is a value."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shotstream_jax.rollout.engine import Engine
from shotstream_jax.rollout.stream import Camera, plan_for, plan_story, stream_story
from shotstream_jax.story import Defaults, Shot, Story, camera_start

SIZE = (32, 48)


def story_of(*shots, version=2, chunks=1):
    return Story(
        title="t",
        shots=tuple(shots),
        defaults=Defaults(size=SIZE, seed=5, chunks=chunks),
        version=version,
    )


@st.composite
def stories(draw):
    count = draw(st.integers(2, 9))
    turns = ["cut", *(draw(st.sampled_from(["cut", "continue"])) for _ in range(count - 1))]
    return story_of(*(Shot(caption=f"{k}", transition=turn) for k, turn in enumerate(turns)))


def latents_of(pieces):
    return np.concatenate([piece.latents for piece in pieces], axis=1)


def film_all(networks, story):
    shots = {}
    for piece in stream_story(networks, story):
        shots.setdefault(piece.plan.index, []).append(piece)
    return [latents_of(shots[index]) for index in range(len(story.shots))]


class Calls(list):
    """A `run` that notes stages that read the cache: chunk number, and the caption's keys."""

    def __call__(self, part, program, *inputs, **settings):
        number = text = None
        if part in ("denoise", "clean pass"):
            _, _, cache, number, *_ = inputs
            text = float(jnp.sum(jnp.abs(cache.text.key)))
        self.append((part, number, text))
        return program(*inputs, **settings)

    def numbers(self, part):
        return [number for name, number, _ in self if name == part]

    def texts(self, part):
        return [text for name, _, text in self if name == part]


@settings(deadline=None, max_examples=12)
@given(stories(), st.data())
def test_any_shot_can_be_filmed_again_and_the_film_goes_on(networks, story, data):
    camera = Camera(networks, SIZE)
    first = [latents_of(camera.film(plan)) for plan in plan_story(networks, story)]

    redone = data.draw(st.integers(0, len(story.shots) - 1))
    shots = list(story.shots)
    shots[redone] = dataclasses.replace(shots[redone], take=1)
    again = dataclasses.replace(story, shots=tuple(shots))
    plans = plan_story(networks, again)
    for plan in plans[camera_start(again, redone) : redone]:
        list(camera.replay(plan, jnp.asarray(first[plan.index])))
    later = [latents_of(camera.film(plan)) for plan in plans[redone:]]

    fresh = film_all(networks, again)
    for one, other in zip([*first[:redone], *later], fresh, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(later[0] - first[redone]).max() > 1e-2


def test_a_take_of_several_chunks_is_replayed_whole_before_it_goes_on(networks):
    """Each chunk's clean pass is put off when replaying, and none of them may be forgotten."""
    story = story_of(Shot(caption="a", chunks=3), Shot(caption="b", transition="continue"))
    plans = plan_story(networks, story)
    first, going_on = film_all(networks, story)
    camera = Camera(networks, SIZE)
    list(camera.replay(plans[0], jnp.asarray(first)))
    np.testing.assert_array_equal(latents_of(camera.film(plans[1])), going_on)


def test_noise_belongs_to_the_shots_id_take_and_chunk(networks):
    one, two = (Shot(caption="a", id=name) for name in ("one", "two"))
    new = Shot(caption="b", id="new")
    before, after = story_of(one, two), story_of(new, two, one)
    engine = Engine(networks, SIZE)

    def noise(story, index, chunk=0, **changes):
        plan = dataclasses.replace(plan_for(networks, story, index), **changes)
        return np.asarray(engine.noise(plan, chunk))

    np.testing.assert_array_equal(noise(before, 0), noise(after, 2))
    np.testing.assert_array_equal(noise(before, 1), noise(after, 1))
    others = [
        noise(before, 0),
        noise(before, 1),
        noise(before, 0, chunk=1),
        noise(before, 0, take=1),
        noise(before, 0, seed=6),
    ]
    # Two draws of 384 Gaussians correlate by .05 (standard deviation), equal ones by 1.
    for number, one in enumerate(others):
        for other in others[:number]:
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.25


def test_in_format_1_noise_belongs_to_the_place(networks):
    shots = [Shot(caption="a", id=name) for name in ("one", "two")]
    plan = plan_for(networks, story_of(*shots, version=1), 1)
    key = jax.random.key(5)
    # Place, take and chunk, then the denoising step.
    for number in (1, 0, 0, 0):
        key = jax.random.fold_in(key, number)
    found = Engine(networks, SIZE).noise(plan, 0)
    np.testing.assert_array_equal(found[0], jax.random.normal(key, found.shape[1:]))


def test_a_state_is_a_value(networks):
    """With `reuse_states`, a state can be gone on from in several ways, and again."""
    engine = Engine(networks, SIZE, reuse_states=True)
    plan = plan_for(networks, story_of(Shot(caption="a"), chunks=4), 0)
    state = engine.cut(plan, [])
    for chunk in range(2):
        state, _ = engine.next_chunk(state, engine.noise(plan, chunk))
    noise = engine.noise(plan, 2)
    _, plain = engine.next_chunk(state, noise)
    _, other = engine.next_chunk(engine.continue_(state, "b"), noise)
    replayed, _ = engine.replay(state, other.latents)
    engine.next_chunk(replayed, engine.noise(plan, 3))
    _, again = engine.next_chunk(state, noise)
    np.testing.assert_array_equal(plain.latents, again.latents)
    np.testing.assert_array_equal(plain.parts[-1], again.parts[-1])
    assert np.abs(plain.latents - other.latents).max() > 1e-4


def test_a_replayed_take_goes_on_as_the_filmed_one(networks):
    plan = plan_for(networks, story_of(Shot(caption="a"), chunks=4), 0)
    engine = Engine(networks, SIZE)
    filmed, chunks = engine.cut(plan, []), []
    for chunk in range(3):
        filmed, decoded = engine.next_chunk(filmed, engine.noise(plan, chunk))
        chunks.append(decoded)
    replayed = engine.cut(plan, [])
    for chunk in chunks:
        replayed, decoded = engine.replay(replayed, chunk.latents)
        for one, other in zip(decoded.parts, chunk.parts, strict=True):
            np.testing.assert_array_equal(one, other)
    last = [engine.next_chunk(s, engine.noise(plan, 3))[1].latents for s in (filmed, replayed)]
    np.testing.assert_array_equal(*last)


def test_a_take_that_is_extended_draws_new_noise(networks):
    four = plan_for(networks, story_of(Shot(caption="a", chunks=4)), 0)
    two = dataclasses.replace(four, chunks=2)
    at_once = latents_of(Camera(networks, SIZE).film(four))
    camera = Camera(networks, SIZE)
    pieces = [*camera.film(two), *camera.film(four, first_chunk=2)]
    np.testing.assert_array_equal(latents_of(pieces), at_once)
    assert [piece.chunk for piece in pieces] == [0, 1, 2, 3]


def test_a_cut_fills_all_slots_or_none(networks):
    story = story_of(Shot(caption="a"), Shot(caption="b"))
    plan = plan_for(networks, story, 1)
    slots = networks.config.rollout.window.context
    engine = Engine(networks, SIZE)
    frame = jnp.zeros((1, 1, *engine.grid, networks.config.dit.latent_channels))
    for count in (1, slots - 1, slots + 1):
        context = tuple(plan.context[0] for _ in range(count))
        with pytest.raises(ValueError, match=f"names {count} context frames .* {slots} slots"):
            engine.cut(dataclasses.replace(plan, context=context), [frame] * count)
    with pytest.raises(ValueError, match=f"names {slots} context frames and is given 1"):
        engine.cut(plan, [frame])


@pytest.mark.parametrize("policy", ["anchor", "recent", "first", "ends"])
def test_every_policy_films_a_long_story(networks, policy):
    story = story_of(*(Shot(caption=f"{k}") for k in range(9)))
    camera = Camera(networks, SIZE)
    for plan in plan_story(networks, story, policy=policy):
        assert np.all(np.isfinite(latents_of(camera.film(plan))))


def test_any_frame_of_any_take_can_be_pinned(networks):
    story = story_of(Shot(caption="a", chunks=2), Shot(caption="b"))
    plans = plan_story(networks, story)
    found = []
    for number in (5, 7):
        camera = Camera(networks, SIZE)
        list(camera.film(plans[0]))
        pinned = dataclasses.replace(
            plans[1].context[0],
            source=dataclasses.replace(plans[1].context[0].source, frame=number),
        )
        plan = dataclasses.replace(plans[1], context=(pinned,) * len(plans[1].context))
        found.append(latents_of(camera.film(plan)))
    assert np.abs(found[0] - found[1]).max() > 1e-4


def test_a_context_frame_is_that_frame_encoded_by_itself(networks):
    story = story_of(Shot(caption="a", chunks=2), Shot(caption="b"))
    plans = plan_story(networks, story)
    camera = Camera(networks, SIZE)
    pieces = list(camera.film(plans[0]))
    whole = np.concatenate([piece.frames for piece in pieces])
    for frame in plans[1].context:
        pixels = jnp.asarray(whole[frame.source.frame]) / 127.5 - 1
        # Frames are kept unrounded: half a level of 8 bits apart at most.
        expected = camera.engine.encode_frame(pixels)
        np.testing.assert_allclose(camera.store.latent(frame.source), expected, atol=0.1)
        others = [camera.engine.encode_frame(jnp.asarray(w) / 127.5 - 1) for w in whole]
        distance = [np.abs(camera.store.latent(frame.source) - other).max() for other in others]
        assert int(np.argmin(distance)) == frame.source.frame


class TestPositions:
    """The small model holds three chunks: T = 3."""

    def film(self, networks, positions, chunks=6):
        calls = Calls()
        camera = Camera(networks, SIZE, run=calls)
        plan = plan_for(networks, story_of(Shot(caption="a", chunks=chunks)), 0)
        plan = dataclasses.replace(plan, positions=positions)
        return latents_of(camera.film(plan)), calls

    def test_all_policies_film_trained_lengths_alike(self, networks):
        running, rebased, turned = (
            self.film(networks, positions)[0] for positions in ("running", "rebased", "turned")
        )
        trained = 3 * networks.config.rollout.window.chunk
        np.testing.assert_array_equal(running[:, :trained], rebased[:, :trained])
        np.testing.assert_array_equal(running[:, :trained], turned[:, :trained])
        for one, other in ((running, rebased), (running, turned), (rebased, turned)):
            assert np.abs(one[:, trained:] - other[:, trained:]).max() > 1e-4

    def test_running_numbers_go_on(self, networks):
        _, calls = self.film(networks, "running")
        assert calls.numbers("denoise") == [0, 1, 2, 3, 4, 5]
        assert calls.numbers("clean pass") == [0, 1, 2, 3, 4]

    def test_rebased_chunks_are_committed_again_as_the_first(self, networks):
        _, calls = self.film(networks, "rebased")
        assert calls.numbers("denoise") == [0, 1, 2, 2, 2, 2]
        # From the fourth chunk on, the two chunks before it become 0 and 1.
        assert calls.numbers("clean pass") == [0, 1, 0, 1, 0, 1, 0, 1]

    def test_turned_keys_leave_the_last_number_free(self, networks):
        _, calls = self.film(networks, "turned")
        assert calls.numbers("denoise") == [0, 1, 2, 2, 2, 2]
        assert calls.numbers("clean pass") == [0, 1, 2, 2, 2]
        assert [name for name, *_ in calls].count("turn back") == 3

    def test_rebased_chunks_keep_the_captions_they_were_filmed_to(self, networks):
        """After a switch, re-basing commits old chunks under the old caption."""
        plan = plan_for(networks, story_of(Shot(caption="a", chunks=6)), 0)
        plan = dataclasses.replace(plan, positions="rebased")
        calls = Calls()
        engine = Engine(networks, SIZE, run=calls)
        state = engine.cut(plan, [])
        for chunk in range(4):
            state, _ = engine.next_chunk(state, engine.noise(plan, chunk))
        state = engine.continue_(state, "b")
        for chunk in range(4, 6):
            state, _ = engine.next_chunk(state, engine.noise(plan, chunk))
        a, b = calls.texts("denoise")[0], calls.texts("denoise")[-1]
        assert a != b
        assert calls.texts("denoise") == [a, a, a, a, b, b]
        # Chunks 0, 1; then 1, 2 before chunk 3; 2, 3 at the switch; 3, 4 before chunk 5.
        assert calls.texts("clean pass") == [a, a, a, a, a, a, a, b]

    @pytest.mark.parametrize(("keys", "last"), [("keep", "a"), ("recache", "b")])
    def test_a_switch_keeps_the_newest_keys_or_writes_them_anew(self, networks, keys, last):
        plan = plan_for(networks, story_of(Shot(caption="a", chunks=3)), 0)
        calls = Calls()
        engine = Engine(networks, SIZE, run=calls)
        state, _ = engine.next_chunk(engine.cut(plan, []), engine.noise(plan, 0))
        state = engine.continue_(state, "b", keys=keys)
        engine.next_chunk(state, engine.noise(plan, 1))
        texts = dict(zip("ab", calls.texts("denoise"), strict=True))
        assert texts["a"] != texts["b"]
        assert calls.texts("clean pass") == [texts[last]]

    def test_no_clean_pass_can_be_turned_and_not_rebased(self, networks):
        from shotstream_jax.rollout.approximate import Approximation
        from shotstream_jax.rollout.networks import approximated

        approximate = approximated(networks, Approximation(clean_pass=False))
        latents, _ = self.film(approximate, "turned")
        assert np.all(np.isfinite(latents))
        with pytest.raises(ValueError, match="no-clean-pass"):
            self.film(approximate, "rebased")
