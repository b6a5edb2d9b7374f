"""The teacher's films are sampled as by hand, alone or together."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.evaluation.films import EvalStory
from shotstream_jax.evaluation.teacher_films import teacher_films
from shotstream_jax.models import vae
from shotstream_jax.rollout.chunk import chunk_noise
from shotstream_jax.rollout.conditioning import Conditioning, predict_velocity
from shotstream_jax.rollout.programs import to_video
from shotstream_jax.rollout.teacher import SampleConfig, sample_euler
from shotstream_jax.storyworld.captions import prompts
from shotstream_jax.storyworld.spec import sample_story

SAMPLE = SampleConfig(steps=3, guidance=3.0)
NOTHING = jnp.zeros((1, 6, 4, 6, 4))

decode = jax.jit(vae.decode, static_argnames="config")
encode = jax.jit(vae.encode_images, static_argnames="config")


def film(networks, setup, *stories, batch=2, negative=None, sample=SAMPLE, **how):
    setup = dataclasses.replace(setup, **how)
    make = teacher_films(networks, setup, sample=sample, negative=negative, batch=batch)
    return list(make(stories))


@functools.partial(jax.jit, static_argnums=1)
def by_hand(params, config, context, context_shots, text, noise, rope_shot):
    """Latents of one shot; `text` is of its context frames, and its own."""
    conditioning = Conditioning(
        context=context,
        context_shots=jnp.stack(context_shots)[None],
        shot=rope_shot[None],
        text=text,
    )
    blank = dataclasses.replace(conditioning, text=jnp.zeros_like(text))

    def velocity(x_t, timestep):
        timesteps = jnp.full((1, 1), timestep)
        prompted, unprompted = (
            predict_velocity(params, config, branch, x_t, timesteps)
            for branch in (conditioning, blank)
        )
        return unprompted + 3.0 * (prompted - unprompted)

    return sample_euler(velocity, noise, SAMPLE).x0


@pytest.fixture(scope="module")
def made(networks, setup, story):
    return film(networks, setup, story)[0]


def close(frames, pixels):
    return np.abs(np.asarray(frames, int) - np.asarray(to_video(pixels), int)).max() <= 1


def test_shots_are_sampled_as_by_hand(networks, setup, story, made):
    first, second, third = prompts(story.spec)
    networks_vae, seen = (networks.vae, networks.config.vae), []
    # The shot and the frame that each context frame is of, the captions, the rotation's number.
    for shot, (refs, captions, rope_shot) in enumerate(
        [
            ([], [first] * 7, 1),
            ([(0, frame) for frame in (0, 1, 2, 2, 3, 4)], [first] * 6 + [second], 1),
            (
                [(shot, frame) for shot in (0, 1) for frame in (0, 2, 4)],
                [first] * 3 + [second] * 3 + [third],
                2,
            ),
        ]
    ):
        images = [seen[earlier][:, frame] for earlier, frame in refs]
        context = encode(*networks_vae, jnp.stack(images, axis=1)) if refs else NOTHING
        context_shots = [earlier for earlier, _ in refs] or [0] * 6
        noise = chunk_noise(story.seed, shot, 0, 0, steps=1, shape=(1, 2, 4, 6, 4))[0]
        text = networks.encode_text(captions)[None]
        latents = by_hand(
            networks.dit, networks.config.dit, context, context_shots, text, noise, rope_shot
        )
        seen.append(jnp.clip(decode(*networks_vae, latents), -1, 1))
        assert close(made[shot], seen[shot][0])


def test_filming_together_changes_nothing(networks, setup, story, made):
    longer = EvalStory(spec=sample_story(3, 2, "test"), seed=9)
    others = [EvalStory(spec=sample_story(4, 3, "test", index=k), seed=k) for k in range(2)]
    films = film(networks, setup, longer, *others, story)
    assert [len(shots) for shots in films] == [2, 3, 3, 3]
    # The last of three in batches of two, beside its own double.
    for together, alone in zip(films[3], made, strict=True):
        assert np.abs(together.astype(int) - alone.astype(int)).max() <= 1


def test_given_shots_are_true_and_are_remembered(networks, setup, story, other_past, made):
    given, other = film(networks, setup, story, other_past, reference_shots=1)
    np.testing.assert_array_equal(given[0], setup.true_shot(story.spec, 0))
    np.testing.assert_array_equal(other[0], setup.true_shot(other_past.spec, 0))
    assert np.any(given[1] != made[1])
    assert np.any(given[1] != other[1])


def test_without_context_a_shot_does_not_know_what_came_before(networks, setup, story, other_past):
    [made, other] = film(networks, setup, story, other_past, context=False)
    np.testing.assert_array_equal(made[2], other[2])
    assert np.any(made[0] != other[0])


def test_a_negative_prompt_takes_the_place_of_zeros(networks, setup, story, made):
    [guided] = film(networks, setup, story, negative="ugly")
    assert np.any(guided[0] != made[0])


def test_history_guides_only_where_there_is_some(networks, setup, story, made):
    sample = dataclasses.replace(SAMPLE, history_guidance=True)
    [guided] = film(networks, setup, story, sample=sample)
    np.testing.assert_array_equal(guided[0], made[0])
    assert np.any(guided[1] != made[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": SampleConfig(steps=0)}, "0 steps make no film"),
        ({"sample": SAMPLE, "batch": 0}, "0 stories at once make no film"),
    ],
)
def test_nothing_to_do_is_refused(networks, setup, options, message):
    with pytest.raises(ValueError, match=message):
        teacher_films(networks, setup, **options)


def test_frames_that_are_no_chunks_are_refused(networks, setup):
    with pytest.raises(ValueError, match="not whole chunks"):
        film(networks, setup, video_frames=7)
