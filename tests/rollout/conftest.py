"""A small model, and a story for it to film."""

import pytest

from shotstream_jax.rollout.networks import Networks
from shotstream_jax.story import Defaults, Shot, Story
from tests.small_film import SmallFilm, make_small_film
from tests.small_model import small_networks


@pytest.fixture(scope="session")
def networks() -> Networks:
    return small_networks()


@pytest.fixture
def story() -> Story:
    shots = (
        Shot(caption="a"),
        Shot(caption="b", chunks=1),
        Shot(caption="c", transition="continue"),
        Shot(caption="d"),
    )
    return Story(title="t", shots=shots, defaults=Defaults(size=(32, 48), seed=5, chunks=3))


@pytest.fixture(scope="session")
def small_film() -> SmallFilm:
    return make_small_film()
