"""Story files to test with."""

import pathlib
import textwrap
from collections.abc import Callable

import pytest


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    """Write a file into a folder of the test's own."""

    def write(text: str | bytes, name: str = "story.yaml") -> pathlib.Path:
        path = tmp_path / name
        content = textwrap.dedent(text).lstrip("\n").encode() if isinstance(text, str) else text
        path.write_bytes(content)
        return path

    return write
