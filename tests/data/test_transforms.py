"""Samples hold what they say: whole films, or a target with the context of the official rule."""

import numpy as np
import pytest

from shotstream_jax.data.sources import StoredFilm
from shotstream_jax.data.transforms import Excerpt, WholeFilm
from shotstream_jax.story import context_frames

SHOTS, FRAMES = 4, 9


@pytest.fixture
def film() -> StoredFilm:
    """Every frame is painted in its own grey, `10 * shot + frame + 1`."""
    grey = 10 * np.arange(SHOTS)[:, None] + np.arange(FRAMES) + 1
    pixels = np.broadcast_to(grey[:, :, None, None, None], (SHOTS, FRAMES, 16, 32, 3))
    return StoredFilm(pixels.astype(np.uint8), tuple(f"caption {k}" for k in range(SHOTS)))


def lengths(captions):
    return np.asarray([[len(caption)] for caption in captions], np.int32)


def test_a_whole_film_is_the_film(film):
    sample = WholeFilm()(film, np.random.default_rng(0))
    np.testing.assert_array_equal(sample["pixels"], film.pixels)
    assert sample["captions"].tolist() == list(film.captions)


@pytest.mark.parametrize("policy", ["anchor", "recent"])
@pytest.mark.parametrize("budget", [1, 2, 6])
def test_context_follows_the_official_rule(film, budget, policy):
    transform = Excerpt(budget=budget, policy=policy)
    seen = set()
    for seed in range(30):
        sample = transform(film, np.random.default_rng(seed))
        target = int(sample["target_shot"])
        seen.add(target)
        np.testing.assert_array_equal(sample["target"], film.pixels[target])
        refs = context_frames([FRAMES] * target, budget, policy)
        if target:
            greys = [10 * ref.shot + ref.frame + 1 for ref in refs]
            assert sample["context"][:, 0, 0, 0].tolist() == greys
            assert sample["context_shot"].tolist() == [ref.shot for ref in refs]
        else:
            assert not sample["context"].any()
            assert not sample["context_shot"].any()
        assert sample["context"].shape == (budget, 16, 32, 3)
        assert sample["captions"].tolist() == list(film.captions)
    assert seen == set(range(SHOTS))


def test_every_shot_is_the_target_about_as_often(film):
    rng = np.random.default_rng(0)
    drawn = [int(Excerpt()(film, rng)["target_shot"]) for _ in range(400)]
    assert np.bincount(drawn) == pytest.approx(100, rel=0.3)


def test_an_excerpt_reads_no_other_frame(film):
    asked = []

    class Watched:
        captions = film.captions
        shot_lengths = film.shot_lengths

        def frames(self, shot, only=None):
            asked.append((shot, only))
            return film.frames(shot, only)

    seed = next(s for s in range(99) if np.random.default_rng(s).integers(SHOTS) == 2)
    Excerpt()(Watched(), np.random.default_rng(seed))
    assert asked == [(2, None), (0, [0, 4, 8]), (1, [0, 4, 8])]


@pytest.mark.parametrize("transform", [Excerpt(tokenize=lengths), WholeFilm(tokenize=lengths)])
def test_captions_are_what_the_tokenizer_makes_of_them(film, transform):
    sample = transform(film, np.random.default_rng(0))
    np.testing.assert_array_equal(sample["captions"], [[9]] * SHOTS)
