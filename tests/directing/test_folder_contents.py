"""Which files are a film's; and a film is moved aside and back whole, wherever it is cut off."""

import fcntl
import os
import pathlib

import pytest

from shotstream_jax.directing import folder_contents
from shotstream_jax.directing.folder_contents import (
    FilmFolderError,
    check_folder,
    claimed,
    drop_replaced,
    missing_shots,
    put_aside,
    restore,
    set_aside,
    surplus_shots,
)

SHOTS = (f"shot_{n:02d}.{suffix}" for n in (1, 2) for suffix in ("json", "mp4", "npz"))
OURS = ("manifest.json", "story.yaml", "film.mp4", "contact.png", *SHOTS)
FOREIGN = ("notes.txt", "shot_notes.json", "shot_1.mp4.bak", "film.mp4.orig", ".hidden")


@pytest.fixture
def folder(tmp_path):
    """A film folder in which a person keeps things of their own; each file holds its name."""
    for name in (*OURS, *FOREIGN):
        (tmp_path / name).write_text(name)
    (tmp_path / "takes").mkdir()
    (tmp_path / "takes" / "shot_01_take_0.mp4").write_text("old")
    (tmp_path / "takes" / "mine.txt").write_text("mine")
    return tmp_path


def snapshot(folder: pathlib.Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_film_is_moved_aside_and_nothing_else(folder):
    """Kind: --overwrite touched what is not the film's."""
    before = snapshot(folder)
    set_aside(folder)
    left = {name for name in snapshot(folder) if not name.startswith(".replaced/")}
    assert left == set(FOREIGN)
    restore(folder)
    assert snapshot(folder) == before
    set_aside(folder)
    drop_replaced(folder)
    assert set(snapshot(folder)) == set(FOREIGN)


@pytest.mark.parametrize("renames", range(12))
def test_moving_aside_can_be_cut_off_anywhere(folder, monkeypatch, renames):
    """Kind: a kill in the middle of overwriting lost a film."""
    before, real, left = snapshot(folder), pathlib.Path.rename, [renames]

    def dies(self, target):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", dies)
    with pytest.raises(KeyboardInterrupt):
        set_aside(folder)
    monkeypatch.undo()
    with claimed(folder):
        assert snapshot(folder) == before


@pytest.mark.parametrize("renames", range(12))
def test_moving_back_can_be_cut_off_anywhere(folder, monkeypatch, renames):
    """Kind: mending what a kill left was itself not safe."""
    before = snapshot(folder)
    set_aside(folder)
    (folder / "manifest.json").write_text("of the new film")
    (folder / "story.yaml").write_text("of the new film")
    real, left = pathlib.Path.rename, [renames]

    def dies(self, target):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", dies)
    with pytest.raises(KeyboardInterrupt):
        restore(folder)
    monkeypatch.undo()
    restore(folder)
    assert snapshot(folder) == before


def test_a_new_film_with_a_finished_shot_stays_and_the_old_one_is_held(folder):
    set_aside(folder)
    (folder / "manifest.json").write_text("new")
    (folder / "shot_01.json").write_text("new")
    held = snapshot(folder)
    restore(folder)
    assert snapshot(folder) == held
    # Overwriting once more gives up the unfinished film, never the finished one before it.
    set_aside(folder)
    restore(folder)
    assert (folder / "shot_01.json").read_text() == "shot_01.json"


@pytest.mark.parametrize(
    "left",
    [
        (),
        (".story.yaml.k3x9", ".manifest.json.ab_1.part"),
        (".shot_03.mp4.part",),
        ("manifest.json",),
        ("manifest.json", "story.yaml", "shot_01.mp4", ".shot_01.npz.x.part"),
    ],
)
def test_a_folder_begun_and_killed_can_be_used_again(tmp_path, left):
    """Kind: what a killed run left made a folder useless, or was taken for a person's own."""
    for name in left:
        (tmp_path / name).write_text("{}")
    check_folder(tmp_path)
    check_folder(tmp_path, overwrite=True)


def test_a_folder_of_other_things_is_no_film_even_to_be_overwritten(tmp_path):
    for name in ("shot_01.mp4", "story.yaml"):
        (tmp_path / name).write_text("holiday")
    for how in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(FilmFolderError, match="holds no film"):
            check_folder(tmp_path, **how)
    assert snapshot(tmp_path) == {"shot_01.mp4": "holiday", "story.yaml": "holiday"}


def test_looking_at_a_folder_changes_nothing(folder):
    before = snapshot(folder)
    with pytest.raises(FilmFolderError, match="--overwrite"):
        check_folder(folder)
    check_folder(folder, resume=True)
    check_folder(folder, overwrite=True)
    check_folder(folder / "new" / "deep")
    assert snapshot(folder) == before
    assert not (folder / "new").exists()


def test_a_folder_that_is_filmed_in_is_refused(folder):
    """Kind: two processes filmed in one folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(FilmFolderError, match="Another process"), claimed(folder):
            raise AssertionError
        with pytest.raises(FilmFolderError, match="Another process"):
            check_folder(folder, resume=True)
    finally:
        os.close(descriptor)
    with claimed(folder):
        pass


def test_file_systems_without_locks_are_filmed_on(tmp_path, monkeypatch):
    def unsupported(descriptor, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(folder_contents.fcntl, "flock", unsupported)
    with claimed(tmp_path / "film"):
        (tmp_path / "film" / "manifest.json").touch()
    assert (tmp_path / "film").is_dir()


def test_a_folder_made_for_nothing_is_removed(tmp_path):
    """Kind: a refused command left something behind."""
    with pytest.raises(ValueError, match="no"), claimed(tmp_path / "a" / "film"):
        raise ValueError("no")
    assert not (tmp_path / "a" / "film").exists()


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FilmFolderError, match="file is a file"):
        check_folder(tmp_path / "file" / "film")


def test_shots_of_a_longer_story_are_found_and_kept_as_takes(folder):
    """Kind: a shorter story left shots of the longer one beside its own."""
    assert surplus_shots(folder, 1) == (1,)
    assert surplus_shots(folder, 2) == ()
    put_aside(folder, 1, 0)
    assert missing_shots(folder, 2) == (1,)
    (folder / "shot_02.json").write_text("again")
    put_aside(folder, 1, 0)
    kept = {name: text for name, text in snapshot(folder).items() if "shot_02_take_0" in name}
    assert kept == {
        "takes/shot_02_take_0.json": "shot_02.json",
        "takes/shot_02_take_0.mp4": "shot_02.mp4",
        "takes/shot_02_take_0.npz": "shot_02.npz",
        "takes/shot_02_take_0_2.json": "again",
    }


def test_links_are_not_followed_out_of_the_folder(folder, tmp_path_factory):
    """Kind: a link planted in a film folder had its target written or removed."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "shot_01_take_0.json").write_text("precious")
    for path in (folder / "takes").iterdir():
        path.unlink()
    (folder / "takes").rmdir()
    (folder / "takes").symlink_to(outside)
    with pytest.raises(FilmFolderError, match="is a link"):
        put_aside(folder, 0, 0)
    set_aside(folder)
    drop_replaced(folder)
    assert (outside / "shot_01_take_0.json").read_text() == "precious"
