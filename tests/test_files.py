"""Files and folders are complete under their name, or what was there before is untouched."""

import errno
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys

import pytest

from shotstream_jax.files import DiskFullError, atomic_file, atomic_folder, local_path

WRITERS = pytest.mark.parametrize("writer", [atomic_file, atomic_folder])


def fill(partial: pathlib.Path, content: bytes = b"new") -> None:
    """Write a file, or a file in a folder."""
    (partial / "part" if partial.is_dir() else partial).write_bytes(content)


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_replaces_the_older_one(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for content in (b"first", b"second"):
        with atomic_file(path) as partial:
            assert partial.name == path.name
            fill(partial, content)
        assert path.read_bytes() == content
    assert names(path.parent) == ["file.txt"]


def test_a_folder_never_replaces_what_is_there(tmp_path):
    with atomic_folder(tmp_path / "new" / "made") as partial:
        fill(partial)
    assert (tmp_path / "new" / "made" / "part").read_bytes() == b"new"
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for taken in (tmp_path / "new" / "made", tmp_path / "dangling"):
        with pytest.raises(FileExistsError, match="exists already"), atomic_folder(taken):
            pass
    assert names(tmp_path) == ["dangling", "new"]


@WRITERS
def test_a_failing_block_changes_nothing(tmp_path, writer):
    (tmp_path / "older").write_bytes(b"older")
    path = tmp_path / ("older" if writer is atomic_file else "made")

    def fail():
        with writer(path) as partial:
            fill(partial)
            raise KeyError("camera")

    with pytest.raises(KeyError):
        fail()
    assert names(tmp_path) == ["older"]
    assert (tmp_path / "older").read_bytes() == b"older"


@WRITERS
def test_others_may_read_what_is_complete(tmp_path, writer):
    with writer(tmp_path / "made") as partial:
        fill(partial)
        assert stat.S_IMODE(partial.parent.stat().st_mode) == 0o700
    (tmp_path / "plain").mkdir() if writer is atomic_folder else (tmp_path / "plain").touch()
    assert (tmp_path / "made").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_nothing_is_written_through_a_symbolic_link(tmp_path):
    private, path = tmp_path / "private", tmp_path / "film"
    private.write_bytes(b"mine")
    path.symlink_to(private)
    (tmp_path / ".film.part").symlink_to(private)
    with atomic_file(path) as partial:
        fill(partial)
    assert private.read_bytes() == b"mine"
    assert not path.is_symlink()
    assert path.read_bytes() == b"new"


def test_a_folder_may_be_reached_through_a_symbolic_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with atomic_file(tmp_path / "link" / "film") as partial:
        fill(partial)
    assert names(tmp_path / "disk") == ["film"]


@WRITERS
def test_two_writers_of_one_name_do_not_meet(tmp_path, writer):
    """The second begins, and ends, while the first is at work."""
    with writer(tmp_path / "first") as first:
        fill(first, b"first")
        # The second writer of a folder fails, as it should: the name is that of a file here.
        with atomic_file(tmp_path / "first") as second:
            assert second.parent != first.parent
            fill(second, b"second")
        assert first.exists()
        (tmp_path / "first").unlink()
    made = tmp_path / "first"
    assert (made / "part" if made.is_dir() else made).read_bytes() == b"first"


@WRITERS
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path, writer):
    (tmp_path / ".film.conf.part").write_bytes(b"another program's")
    program = (
        "import os, pathlib, signal, sys\n"
        "from shotstream_jax import files\n"
        f"with files.{writer.__name__}(pathlib.Path(sys.argv[1])) as partial:\n"
        "    (partial / 'part' if partial.is_dir() else partial).write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    script = [sys.executable, "-c", program, str(tmp_path / "film")]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 2
    with writer(tmp_path / "film") as partial:
        fill(partial)
    assert names(tmp_path) == [".film.conf.part", "film"]


@WRITERS
def test_a_full_disk_is_refused_before_any_work(tmp_path, writer, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with (
        pytest.raises(DiskFullError, match=r"film takes more than 1,001 bytes .* 1,000 free"),
        writer(tmp_path / "film", needed=1_001),
    ):
        pytest.fail("nothing may be written")
    assert names(tmp_path) == []
    with writer(tmp_path / "film", needed=1_000) as partial:
        fill(partial)


@WRITERS
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_fills_up_is_explained(tmp_path, writer, code, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)

    def write():
        with writer(tmp_path / "film") as partial:
            fill(partial, bytes(1_234))
            raise OSError(code, os.strerror(code))

    with pytest.raises(DiskFullError, match=r"takes more than 1,234 bytes .* 1,234 free") as error:
        write()
    assert error.value.errno == code
    assert error.value.filename == str(tmp_path / "film")
    assert str(tmp_path) in str(error.value)
    assert names(tmp_path) == []


def test_a_full_disk_is_explained_once(tmp_path):
    def write():
        with atomic_folder(tmp_path / "run") as folder, atomic_file(folder / "inner"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError, match="inner takes more") as error:
        write()
    assert "run takes" not in str(error.value)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_other_errors_stay_as_they_are(tmp_path, code):
    error = OSError(code, "reason")

    def write():
        with atomic_file(tmp_path / "film"):
            raise error

    with pytest.raises(OSError, match="reason") as caught:
        write()
    assert caught.value is error


def test_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    """The file, then the rename, then the folder that holds the name."""
    path, order = tmp_path / "film", []
    real = os.fsync

    def fsync(descriptor):
        order.append((pathlib.Path(f"/proc/self/fd/{descriptor}").readlink(), path.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_file(path) as partial:
        fill(partial)
    assert order == [(partial, False), (tmp_path, True)]


def test_all_files_of_a_folder_are_on_the_disk_before_its_name(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(descriptor):
        synced.append(pathlib.Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_folder(tmp_path / "made") as partial:
        (partial / "deep").mkdir()
        fill(partial / "deep")
        fill(partial)
    assert sorted(synced[:-1]) == ["deep", "made", "part", "part"]
    assert synced[-1] == tmp_path.name


@pytest.mark.parametrize("name", ["gs://bucket/film", "gs:/bucket/film", "s3://b", "file:///tmp/x"])
def test_an_address_is_no_folder(name):
    """Kind: a folder called `gs:` was made on this machine, and filled."""
    with pytest.raises(ValueError, match="is an address"):
        local_path(name)


@pytest.mark.parametrize("name", ["film-2026-11-25T12:30:00", "x[/y]", "a:b/c", "C:/film", "."])
def test_names_with_signs_in_them_are_folders(name):
    assert local_path(name) == pathlib.Path(name)
