import jax
import pytest

from tests.small_film import SmallFilm, make_small_film


@pytest.fixture(scope="session")
def film_of_four() -> SmallFilm:
    return make_small_film()


def one_of(tree, sample: int):
    """One sample of a batch, still as a batch."""
    return jax.tree.map(lambda x: x[sample : sample + 1], tree)


@pytest.fixture(scope="session")
def pick_sample():
    return one_of
