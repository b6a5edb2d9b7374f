"""Sources hand out films by number, and only the frames that are asked for."""

import pytest

from shotstream_jax.storyworld import source
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.source import WorldSource
from shotstream_jax.storyworld.spec import sample_story

SMALL = Picture(height=48, width=80)


def test_a_world_source_draws_the_stories_of_its_key():
    films = WorldSource(stories=5, shots=3, seed=7, split="test", picture=SMALL, video_frames=9)
    assert len(films) == 5
    film = films[4]
    assert film.spec == sample_story(7, 3, "test", index=4)
    assert film.shot_lengths == (9, 9, 9)
    assert film.captions[2].split("shot2:")[0] == film.captions[0].split("shot0:")[0]
    assert film.frames(1).shape == (9, 48, 80, 3)


@pytest.mark.parametrize("index", [-1, 5])
def test_a_film_that_does_not_exist_is_an_error(index):
    with pytest.raises(IndexError, match=f"Film {index} of 5"):
        WorldSource(stories=5, shots=2)[index]


def test_drawing_a_film_paints_nothing(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("painted")

    monkeypatch.setattr(source, "render_shot", refuse)
    film = WorldSource(stories=5, shots=2)[0]
    assert len(film.captions) == 2
    with pytest.raises(AssertionError, match="painted"):
        film.frames(0)
