"""Samples hold what they say: one shot, or a target with the context of the official rule."""

import numpy as np
import pytest

from shotstream_jax.data.latent_films import LatentFilm, reference_frames
from shotstream_jax.data.transforms import ShotWithContext, SingleShot, StoryCaptions, caption_ids
from shotstream_jax.story import context_frames

SHOTS, VIDEO_FRAMES, FRAMES = 4, 9, 3


def film(budget: int = 6) -> LatentFilm:
    """A clip is its shot's number plus 0.5; a reference 10 times its shot's plus its frame's."""
    shots = np.arange(SHOTS, dtype=np.float32)
    frames = reference_frames(VIDEO_FRAMES, budget)
    references = 10 * shots[:, None] + np.asarray(frames) + 1
    grid = np.ones((2, 3, 4), np.float32)
    return LatentFilm(
        captions=tuple("word " * (k + 1) for k in range(SHOTS)),
        clips=(shots[:, None] + 0.5 * np.ones((1, FRAMES)))[..., None, None, None] * grid,
        references=references[..., None, None, None] * grid,
        reference_frames=frames,
        video_frames=VIDEO_FRAMES,
    )


def lengths(captions):
    """Every id is the number of words of its caption."""
    ids = np.asarray([[len(caption.split())] * 2 for caption in captions], np.int32)
    return ids, np.ones(ids.shape, bool)


@pytest.mark.parametrize("policy", ["anchor", "recent", "first", "ends"])
@pytest.mark.parametrize("budget", [1, 2, 6])
def test_context_follows_the_official_rule(budget, policy):
    transform = ShotWithContext(lengths, budget=budget, policy=policy)
    seen = set()
    for seed in range(30):
        sample = transform(film(budget), np.random.default_rng(seed))
        target = int(sample["target_shot"])
        seen.add(target)
        assert (sample["target"] == 0.5 + target).all()
        refs = context_frames([VIDEO_FRAMES] * target, budget, policy)
        if target:
            values = [10 * ref.shot + ref.frame + 1 for ref in refs]
            assert sample["context"][:, 0, 0, 0].tolist() == values
            assert sample["context_shot"].tolist() == [ref.shot for ref in refs]
            assert sample["ids"][:-1, 0].tolist() == [ref.shot + 1 for ref in refs]
        else:
            assert not sample["context"].any()
            assert not sample["context_shot"].any()
            assert sample["ids"][:-1, 0].tolist() == [1] * budget
        assert sample["context"].shape == (budget, 2, 3, 4)
        assert sample["ids"][-1, 0] == target + 1
        assert sample["mask"].shape == sample["ids"].shape == (budget + 1, 2)
    assert seen == set(range(SHOTS))


def test_context_may_read_the_caption_of_the_target():
    for seed in range(8):
        sample = ShotWithContext(lengths, captions="target")(film(), np.random.default_rng(seed))
        assert sample["ids"][:, 0].tolist() == [int(sample["target_shot"]) + 1] * 7


def test_every_shot_is_the_target_about_as_often():
    rng, transform = np.random.default_rng(0), ShotWithContext(lengths)
    drawn = [int(transform(film(), rng)["target_shot"]) for _ in range(400)]
    assert np.bincount(drawn) == pytest.approx(100, rel=0.3)


def test_one_shot_comes_with_its_own_caption():
    for seed in range(8):
        sample = SingleShot(lengths)(film(), np.random.default_rng(seed))
        assert (sample["target"] + 0.5 == sample["ids"][0, 0]).all()
        assert sample["ids"].shape == (1, 2)


def test_captions_of_a_story_are_those_of_its_first_shots():
    sample = StoryCaptions(lengths, 3)(film(), np.random.default_rng(0))
    assert set(sample) == {"ids", "mask"}
    assert sample["ids"][:, 0].tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="film of 4 shots and stories of 5"):
        StoryCaptions(lengths, 5)(film(), np.random.default_rng(0))


def test_a_caption_that_slots_share_is_tokenized_once():
    asked = []

    def tokenize(captions):
        asked.append(captions)
        return lengths(captions)

    ids = caption_ids(tokenize, ["a b", "a b", "c", "a b"])["ids"]
    assert ids[:, 0].tolist() == [2, 2, 1, 2]
    assert asked == [["a b", "c"]]


def test_a_frame_that_was_not_encoded_is_named():
    with pytest.raises(ValueError, match=r"Frame 4 of shot 0 was not encoded, only frames \(0,\)"):
        film(budget=1).context(context_frames([VIDEO_FRAMES], 3))
