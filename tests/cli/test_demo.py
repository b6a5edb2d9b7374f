"""`shotstream demo`."""

import pathlib
import shlex

from shotstream_jax.cli import demo as module
from shotstream_jax.cli.demo import DEMO_STORY, explained, free_folder, viewer_command
from tests.docs.blocks import parse_command

CONFIGS = pathlib.Path(__file__).parents[2] / "configs" / "stories"


def test_the_bundled_story_is_the_one_of_the_repository():
    assert DEMO_STORY.read_bytes() == (CONFIGS / "demo.yaml").read_bytes()


def test_films_and_explains(run, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(module, "viewer_command", lambda *about: "viewer")
    monkeypatch.setattr(module, "_open", lambda viewer, film: opened.append((viewer, film)))
    monkeypatch.chdir(tmp_path)
    status, out, _ = run("demo")
    assert status == 0
    film = pathlib.Path("shotstream_demo", "film.mp4")
    assert film.is_file()
    assert str(film) in out
    assert opened == [("viewer", film)]


def test_every_command_that_it_names_exists():
    lines = explained(pathlib.Path("a folder")).splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("  ")]
    assert ["cp", "a folder/story.yaml", "mine.yaml"] in commands
    named = [words for words in commands if words[0] == "shotstream" and "--help" not in words]
    assert [words[1] for words in named] == ["words", "check", "generate", "generate"]
    for words in named:
        parse_command(words)


def test_a_folder_that_is_taken_is_left_alone(tmp_path):
    wanted = tmp_path / "film"
    assert free_folder(wanted) == wanted
    wanted.mkdir()
    assert free_folder(wanted) == wanted
    (wanted / "x").touch()
    (tmp_path / "film_2").touch()
    assert free_folder(wanted) == tmp_path / "film_3"


def test_a_viewer_is_opened_only_where_a_screen_is(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert viewer_command({}, "linux") is None
    assert viewer_command({"DISPLAY": ":0"}, "linux") == "/bin/xdg-open"
    assert viewer_command({"WAYLAND_DISPLAY": "wayland-0"}, "linux") == "/bin/xdg-open"
    assert viewer_command({}, "darwin") == "/bin/open"
    assert viewer_command({"SSH_CONNECTION": "x"}, "darwin") is None
