"""The oracle reads true films rightly, survives what an autoencoder does, and knows a non-film."""

import dataclasses

import numpy as np
import pytest

from shotstream_jax.storyworld.attributes import ATTRIBUTES, COLOURS, TRIMS
from shotstream_jax.storyworld.calibration import oracle_accuracy
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.oracle import UNSEEN, observe_shot
from shotstream_jax.storyworld.render import render_shot
from shotstream_jax.storyworld.scenery import backdrop
from shotstream_jax.storyworld.spec import ShotSpec, StorySpec, sample_story
from tests.storyworld.corruptions import CORRUPTIONS, corruption

SIZES = [Picture(height=64, width=96), Picture(height=48, width=80)]
STORIES = [sample_story(2_718, 2, "test", index=i) for i in range(100)]


@pytest.mark.parametrize("picture", SIZES)
def test_every_attribute_and_cut_of_true_films_is_read_rightly(picture):
    accuracy = oracle_accuracy(STORIES, picture=picture)
    assert set(accuracy) == {*ATTRIBUTES, "cuts"}
    assert min(accuracy.values()) >= 0.98, accuracy


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupted_films_are_read_rightly(name):
    accuracy = oracle_accuracy(STORIES[:25], corrupt=corruption(name))
    assert min(accuracy.values()) >= 0.98, accuracy


@pytest.mark.parametrize("frames", [9, 81])
def test_films_of_other_lengths_are_read_rightly(frames):
    accuracy = oracle_accuracy(STORIES[50:65], video_frames=frames)
    assert min(accuracy.values()) >= 0.98, accuracy


def test_floating_and_whole_pixels_read_alike():
    film = render_shot(STORIES[0], 0)
    seen = observe_shot(film)
    other = observe_shot(film.astype(np.float32) / 127.5 - 1)
    assert other.values == seen.values
    assert other.confidence == pytest.approx(seen.confidence, abs=1e-3)


def test_track_and_size_are_those_of_the_body():
    shot = ShotSpec(scene="snow", action="walk_right", framing="medium")
    spec = StorySpec(
        shape="triangle", colour="blue", pattern="split", trim="pink", sky="amber", shots=(shot,)
    )
    seen = observe_shot(render_shot(spec, 0))
    assert seen.radius == pytest.approx(0.268, rel=0.05)
    np.testing.assert_allclose(seen.x, np.linspace(seen.x[0], seen.x[-1], 21), atol=0.02)
    assert seen.x[-1] == pytest.approx(-seen.x[0], abs=0.02)
    assert seen.evidence["walk_right"] == 1
    assert seen.evidence["still"] == 0


@pytest.mark.parametrize(("field", "values"), [("trim", TRIMS), ("colour", COLOURS)])
def test_a_colour_is_read_whatever_the_other_one_is(field, values):
    for value in values:
        spec = dataclasses.replace(STORIES[3], **{field: value})
        seen = observe_shot(render_shot(spec, 0)).values
        assert (seen["trim"], seen["colour"]) == (spec.trim, spec.colour)


def non_films() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (21, 8, 12, 3)).astype(np.uint8)
    return {
        "black": np.zeros((21, 64, 96, 3), np.uint8),
        "grey": np.full((21, 64, 96, 3), 128, np.uint8),
        "noise": rng.integers(0, 256, (21, 64, 96, 3)).astype(np.uint8),
        "blocks": blocks.repeat(8, 1).repeat(8, 2),
        "one frame": np.zeros((1, 64, 96, 3), np.uint8),
    }


@pytest.mark.parametrize("name", non_films())
def test_nothing_is_seen_in_what_is_no_film(name):
    seen = observe_shot(non_films()[name])
    assert set(seen.values.values()) == {UNSEEN}
    assert not any(seen.confidence.values())
    assert not any(seen.evidence.values())


def test_an_empty_set_has_a_scene_and_no_character():
    empty = backdrop("desert", "indigo", "wide", SIZES[0]).round().astype(np.uint8)
    seen = observe_shot(np.repeat(empty[None], 21, axis=0)).values
    assert (seen["scene"], seen["sky"]) == ("desert", "indigo")
    assert {seen[name] for name in ("shape", "colour", "trim", "action", "framing")} == {UNSEEN}


def test_flicker_and_deviation_are_those_of_the_set():
    film = render_shot(STORIES[1], 0)
    still = observe_shot(film)
    assert still.flicker == 0
    assert still.deviation < 0.001
    flash = film.copy()
    flash[::2] = np.clip(flash[::2] * 0.9, 0, 255).astype(np.uint8)
    assert observe_shot(flash).flicker > 0.03
    faded = (film * 0.8 + 25).astype(np.uint8)
    assert observe_shot(faded).deviation > 0.02


def test_a_frame_that_cannot_be_staged_is_refused():
    with pytest.raises(ValueError, match="50x80"):
        observe_shot(np.zeros((21, 50, 80, 3), np.uint8))
