import dataclasses

import jax
import numpy as np
import pytest

from shotstream_jax.models.vae import decode
from shotstream_jax.rollout.programs import to_video
from shotstream_jax.rollout.stream import (
    Camera,
    context_sources,
    plan_for,
    plan_story,
    stream_story,
)
from shotstream_jax.story import Shot


def filmed(networks, story, **how):
    """Latents and video of every shot, by one camera."""
    shots: dict[int, list] = {}
    for piece in stream_story(networks, story, **how):
        shots.setdefault(piece.plan.index, []).append(piece)
    return [
        (
            np.concatenate([piece.latents for piece in pieces], axis=1),
            np.concatenate([piece.frames for piece in pieces]),
        )
        for pieces in shots.values()
    ]


@pytest.fixture(scope="module")
def film(networks, request):
    story = request.getfixturevalue("story_of_four")
    return story, filmed(networks, story)


@pytest.fixture(scope="module")
def story_of_four():
    from shotstream_jax.story import Defaults, Story

    shots = (
        Shot(caption="a"),
        Shot(caption="b", chunks=1),
        Shot(caption="c", chunks=2, transition="continue"),
        Shot(caption="d", chunks=1),
    )
    defaults = Defaults(size=(32, 48), seed=5, chunks=3)
    return Story(title="t", shots=shots, defaults=defaults, version=1)


def test_frames_come_chunk_by_chunk(networks, story_of_four):
    pieces = stream_story(networks, story_of_four)
    first = next(pieces)
    assert (first.plan.index, first.chunk, first.ends_shot) == (0, 0, False)
    assert first.frames.shape == (5, 32, 48, 3)
    lengths = [len(piece.frames) for piece in pieces]
    # Two latent frames a chunk: a cut shows 1 + 4, everything else 4 + 4.
    assert lengths == [8, 8, 5, 8, 8, 5]


def test_film_is_the_decoded_latents(networks, film):
    _, shots = film
    latents, frames = shots[0]
    pixels = decode(networks.vae, networks.config.vae, jax.numpy.asarray(latents))
    whole = np.asarray(to_video(pixels)[0], np.int16)
    assert np.abs(whole - frames.astype(np.int16)).max() <= 1


def test_continued_shot_is_one_camera(networks, film):
    """A continued shot decodes without a seam, and its latents are not those of a cut."""
    story, shots = film
    joined = jax.numpy.concatenate([shots[1][0], shots[2][0]], axis=1)
    whole = np.asarray(to_video(decode(networks.vae, networks.config.vae, joined))[0], np.int16)
    shown = np.concatenate([shots[1][1], shots[2][1]]).astype(np.int16)
    assert np.abs(whole - shown).max() <= 1

    cut = dataclasses.replace(story.shots[2], transition="cut")
    other = dataclasses.replace(story, shots=(*story.shots[:2], cut, story.shots[3]))
    assert np.abs(filmed(networks, other)[2][0] - shots[2][0]).max() > 1e-3


def test_same_seed_same_bytes_and_other_seed_other_film(networks, film):
    story, shots = film
    again = filmed(networks, story)
    for (latents, frames), (latents_again, frames_again) in zip(shots, again, strict=True):
        np.testing.assert_array_equal(latents, latents_again)
        np.testing.assert_array_equal(frames, frames_again)
    reseeded = dataclasses.replace(
        story, shots=(story.shots[0],), defaults=dataclasses.replace(story.defaults, seed=6)
    )
    assert np.abs(filmed(networks, reseeded)[0][0] - shots[0][0]).max() > 1e-2


@pytest.mark.parametrize("resume_at", [1, 2, 3])
def test_replaying_is_as_good_as_filming(networks, film, resume_at):
    story, shots = film
    camera = Camera(networks, story.defaults.size)
    for index in range(resume_at):
        plan = plan_for(networks, story, index)
        pieces = camera.replay(plan, jax.numpy.asarray(shots[index][0]))
        frames = [piece.frames for piece in pieces]
        np.testing.assert_array_equal(np.concatenate(frames), shots[index][1])
    for index in range(resume_at, len(shots)):
        pieces = list(camera.film(plan_for(networks, story, index)))
        latents = np.concatenate([piece.latents for piece in pieces], axis=1)
        np.testing.assert_array_equal(latents, shots[index][0])


def test_earlier_shots_are_seen_and_their_captions_are_read(networks, film):
    story, shots = film
    other = dataclasses.replace(story.shots[0], caption="z")
    changed = dataclasses.replace(story, shots=(other, *story.shots[1:]))
    for (before, _), (after, _) in zip(shots, filmed(networks, changed), strict=True):
        assert np.abs(before - after).max() > 1e-4


def test_captions_are_encoded_once_however_often_they_are_read(networks, story_of_four):
    asked = []

    def encode(captions):
        asked.extend(captions)
        return networks.encode_text(captions)

    list(stream_story(dataclasses.replace(networks, encode_text=encode), story_of_four))
    assert sorted(asked) == sorted(set(asked))
    assert len(asked) == len(story_of_four.shots)


def test_memory_stays_flat_over_a_long_story(networks, story_of_four):
    shots = tuple(Shot(caption=f"{k}", chunks=1) for k in range(12))
    story = dataclasses.replace(story_of_four, shots=shots)
    plans = plan_story(networks, story)
    camera = Camera(networks, story.defaults.size, wanted=context_sources(plans))
    held = []
    for plan in plans:
        list(camera.film(plan))
        camera.store.keep(context_sources(plans[plan.index + 1 :]))
        held.append(len(camera.store))
    slots = networks.config.rollout.window.context
    assert max(held) <= 2 * slots
    assert held[-1] == 0
    sources = [frame.source.shot_id for frame in plans[-1].context]
    # The first shot, and the last ones before this.
    assert sources == ["s1", *(f"s{k}" for k in range(11 - slots + 2, 12))]


def test_injected_noise_is_what_is_filmed(networks, story_of_four):
    story = dataclasses.replace(story_of_four, shots=story_of_four.shots[:1])
    seeded = Camera(networks, story.defaults.size).engine.noise
    [(latents, _)] = filmed(networks, story, noise=seeded)
    [(plain, _)] = filmed(networks, story)
    np.testing.assert_array_equal(latents, plain)
    [(flipped, _)] = filmed(networks, story, noise=lambda plan, chunk: -seeded(plan, chunk))
    assert np.abs(flipped - plain).max() > 1e-2


def test_the_first_latent_frame_can_be_shown_before_its_chunk(networks, story_of_four):
    first = next(stream_story(networks, story_of_four))
    assert [part.shape[0] for part in first.parts] == [1, 4]
    np.testing.assert_array_equal(np.concatenate(first.parts), first.frames)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((40, 48), "height of 40 pixels is not a multiple of 16; try 32"),
        ((32, 0), "width of 0 pixels is not a multiple of 16; try 16"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(networks, size, message):
    with pytest.raises(ValueError, match=message):
        Camera(networks, size)


def test_nothing_to_continue_is_refused(networks, story_of_four):
    camera = Camera(networks, story_of_four.defaults.size)
    with pytest.raises(ValueError, match="begin with a cut"):
        next(camera.film(plan_for(networks, story_of_four, 2)))


def test_shots_out_of_order_are_refused(networks, story_of_four):
    camera = Camera(networks, story_of_four.defaults.size)
    with pytest.raises(
        ValueError,
        match=r"Frame 0 of shot s1 \(take 0\) is context .* not in the store",
    ):
        next(camera.film(plan_for(networks, story_of_four, 1)))


def test_a_shot_longer_than_positions_reach_is_refused(networks, story_of_four):
    shots = (Shot(caption="a", chunks=600),)
    plan = plan_for(networks, dataclasses.replace(story_of_four, shots=shots), 0)
    with pytest.raises(ValueError, match="600 chunks after its cut, and running positions reach"):
        next(Camera(networks, story_of_four.defaults.size).film(plan))
