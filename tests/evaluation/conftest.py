"""A small model, and a story for it to film."""

import pytest

from shotstream_jax.evaluation.films import EvalSetup, EvalStory
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.spec import sample_story
from tests.small_model import small_networks


@pytest.fixture(scope="session")
def networks() -> Networks:
    return small_networks()


@pytest.fixture(scope="session")
def setup() -> EvalSetup:
    return EvalSetup(picture=Picture(height=32, width=48), video_frames=5)


@pytest.fixture(scope="session")
def story() -> EvalStory:
    return EvalStory(spec=sample_story(1, 3, "test"), seed=5)


@pytest.fixture(scope="session")
def other_past(story) -> EvalStory:
    """Another first shot and other hidden attributes; later captions and the seed are the same."""
    spec = story.spec
    other = sample_story(2, 3, "test")
    changed = {
        "trim": "black" if spec.trim != "black" else "white",
        "shots": (other.shots[0], *spec.shots[1:]),
    }
    assert other.shots[0] != spec.shots[0]
    return EvalStory(spec=type(spec)(**{**vars(spec), **changed}), seed=story.seed)
