import pytest

from tests.train.by_hand import make_material


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    """Films and checkpoints, made once for all stages that are computed by hand."""
    return make_material(tmp_path_factory.mktemp("by_hand"))
