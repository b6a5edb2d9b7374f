"""Rendered films show their spec, frame by frame and at any size."""

import dataclasses

import numpy as np
import pytest

from shotstream_jax.storyworld.attributes import FRAMINGS, SCENES, SKIES, TRIMS
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.render import render_shot
from shotstream_jax.storyworld.scenery import backdrop
from shotstream_jax.storyworld.spec import ShotSpec, StorySpec, sample_story

SIZES = [(48, 80), (64, 96), (96, 160)]


def one_shot(**fields) -> StorySpec:
    shot = {"scene": "snow", "action": "still", "framing": "medium"}
    story = {"shape": "circle", "colour": "red", "pattern": "dipped", "trim": "cyan", "sky": "rose"}
    shot |= {k: v for k, v in fields.items() if k not in story}
    story |= {k: v for k, v in fields.items() if k in story}
    return StorySpec(shots=(ShotSpec(**shot),), **story)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("frames", [1, 9, 81])
def test_a_shot_has_the_asked_size(height, width, frames):
    film = render_shot(
        sample_story(0, 1), 0, video_frames=frames, picture=Picture(height=height, width=width)
    )
    assert film.shape == (frames, height, width, 3)
    assert film.dtype == np.uint8


def test_some_frames_are_the_frames_of_the_whole_shot():
    for index in range(10):
        spec = sample_story(4, 2, index=index)
        np.testing.assert_array_equal(
            render_shot(spec, 1, only=[0, 13, 20]), render_shot(spec, 1)[[0, 13, 20]]
        )


def test_a_frame_beyond_the_shot_is_an_error():
    with pytest.raises(IndexError):
        render_shot(sample_story(0, 1), 0, only=[21])


def test_rendering_repeats_to_the_bit_and_leaves_the_set_clean():
    spec = sample_story(9, 1)
    first = render_shot(spec, 0)
    render_shot(dataclasses.replace(spec, colour="blue", trim="black"), 0)
    np.testing.assert_array_equal(render_shot(spec, 0), first)
    with pytest.raises(ValueError, match="read-only"):
        backdrop("city", "rose", "wide", Picture())[:] = 0


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_character_touches_no_edge_of_the_frame(height, width):
    picture = Picture(height=height, width=width)
    for index in range(60):
        spec = sample_story(6, 1, index=index)
        film = render_shot(spec, 0, picture=picture)
        empty = backdrop(spec.shots[0].scene, spec.sky, spec.shots[0].framing, picture)
        # More than a shadow darkens.
        off = np.abs(film - empty).max(-1) > 80
        assert not off[:, 0].any()
        assert not off[:, :, [0, -1]].any()
        assert off.any(axis=(1, 2)).all()


def test_a_film_looks_the_same_at_twice_the_size():
    for index in range(10):
        spec = sample_story(8, 1, index=index)
        small = render_shot(spec, 0, picture=Picture(height=48, width=80)).astype(float)
        large = render_shot(spec, 0, picture=Picture(height=96, width=160)).astype(float)
        shrunk = large.reshape(21, 48, 2, 80, 2, 3).mean((2, 4))
        assert np.abs(shrunk - small).mean() < 3


@pytest.mark.parametrize("trim", TRIMS)
def test_the_trim_is_seen_on_the_lower_body_of_a_dipped_character(trim):
    film = render_shot(one_shot(trim=trim, colour="blue"), 0)
    empty = backdrop("snow", "rose", "medium", Picture())
    rows, columns = np.nonzero(np.abs(film[0] - empty).max(-1) > 60)
    patch = film[0, int(np.quantile(rows, 0.8)), int(columns.mean())]
    assert np.abs(patch - np.asarray(TRIMS[trim]) * 0.9).max() < 30


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("scene", SCENES)
def test_the_sky_tints_a_quarter_of_the_set_or_more(scene, framing):
    sets = [backdrop(scene, sky, framing, Picture()) for sky in SKIES]
    for a in range(len(sets)):
        for b in range(a):
            assert (np.abs(sets[a] - sets[b]).max(-1) > 40).mean() > 0.25


def test_every_turn_of_a_spinning_circle_is_seen():
    film = render_shot(one_shot(action="spin"), 0).astype(float)
    assert np.abs(np.diff(film, axis=0)).max(-1).mean((1, 2)).min() > 2


def test_edges_are_antialiased():
    film = render_shot(one_shot(), 0)
    row = film[0, int(0.62 * 64), :, 0].astype(int)
    assert len(np.unique(row)) > 8
