"""A sealed folder tells which of its files changed."""

import pytest

from shotstream_jax.checkpoints.integrity import verify, write_checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "part" / "deep").mkdir(parents=True)
    (tmp_path / "part" / "small").write_bytes(b"1234")
    (tmp_path / "part" / "deep" / "large").write_bytes(bytes(100_000))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_bytes(b"5678")
    write_checksums(tmp_path)
    return tmp_path


def test_an_unchanged_folder_verifies(folder):
    verify(folder, "part")
    verify(folder, "other")


def test_only_the_part_that_is_asked_for_is_looked_at(folder):
    (folder / "other" / "file").write_bytes(b"9999")
    verify(folder, "part")
    with pytest.raises(ValueError, match=r"other/file has checksum \d+ where \d+ was written"):
        verify(folder, "other")


def test_large_files_can_be_left_to_a_later_look(folder):
    large = folder / "part" / "deep" / "large"
    large.write_bytes(b"x" + bytes(99_999))
    verify(folder, "part", checked_bytes=99_999)
    with pytest.raises(ValueError, match=r"large .* it is damaged"):
        verify(folder, "part", checked_bytes=100_000)
    large.write_bytes(bytes(99_999))
    with pytest.raises(ValueError, match="large has 99999 bytes where 100000 were written"):
        verify(folder, "part", checked_bytes=0)


def test_files_that_are_gone_are_named(folder):
    (folder / "part" / "small").unlink()
    with pytest.raises(ValueError, match=r"part/small is missing where 4 were written"):
        verify(folder, "part")


def test_parts_that_were_never_there_are_not_verified(folder):
    with pytest.raises(ValueError, match="lists no file of par;"):
        verify(folder, "par")
