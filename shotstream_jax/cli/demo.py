"""`shotstream demo`: a first film, made with the miniature that comes with the package."""

import dataclasses
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Annotated

import tyro

from shotstream_jax.cli.generate import Generate, generate
from shotstream_jax.directing.film_folder import CONTACT, FILM, STORY

DEMO_STORY = pathlib.Path(__file__).parents[1] / "bundled" / "demo.yaml"
"""A story in the miniature's words; configs/stories/demo.yaml is the same."""

_FOLDER = pathlib.Path("shotstream_demo")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Where the film goes.

    Attributes:
      output: folder for the film, new or empty; by default shotstream_demo, or the next such name.
      no_open: do not open the film when it is ready.
    """

    output: Annotated[pathlib.Path | None, tyro.conf.arg(aliases=("-o",), metavar="FOLDER")] = None
    no_open: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def demo(args: Annotated[Demo, tyro.conf.arg(name="")]) -> None:
    """Film a short story with the bundled miniature, and say what was made and what to try next.

    Args:
      args: where the film goes.

    Raises:
      ValueError: a folder that cannot take a film.
      OSError: no room, or no permission.
    """
    folder = args.output or free_folder(_FOLDER)
    sys.stderr.write(
        "A story of three shots, filmed by a miniature of 48 x 80 pixels on this machine. The\n"
        "first run compiles for some ten seconds; later ones take two.\n"
    )
    generate(Generate(story=str(DEMO_STORY), output=folder))
    sys.stdout.write(explained(folder))
    viewer = None if args.no_open else viewer_command(os.environ, sys.platform)
    if viewer:
        _open(viewer, folder / FILM)


def free_folder(wanted: pathlib.Path) -> pathlib.Path:
    """The first of `name`, `name_2`, `name_3`, ... where nothing is yet, or an empty folder."""
    number, folder = 1, wanted
    while folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        number += 1
        folder = wanted.with_name(f"{wanted.name}_{number}")
    return folder


def explained(folder: pathlib.Path) -> str:
    """What a demo's folder holds, and what to try next."""
    # Copied by hand: a path with a space must stay one word.
    quoted = shlex.quote(str(folder / STORY))
    return f"""
{folder / FILM}: the film
{folder / CONTACT}: all shots at a glance
{folder / STORY}: the story, three captions with every setting written out

Try next:
  shotstream words                  # what the miniature understands
  cp {quoted} mine.yaml             # change a caption in it, then
  shotstream check mine.yaml
  shotstream generate mine.yaml -o my_film
  shotstream generate mine.yaml -o my_film --resume --only 2    # shot 2 again, as another take
  shotstream convert --help         # the released weights, which film in 480 x 832
"""


def viewer_command(environment: Mapping[str, str], platform: str) -> str | None:
    """The command that opens a film on this desktop; `None` where no one would see it."""
    if platform == "darwin":
        # A terminal over SSH has no screen that belongs to it.
        return None if environment.get("SSH_CONNECTION") else shutil.which("open")
    has_screen = environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    return shutil.which("xdg-open") if has_screen else None


def _open(viewer: str, film: pathlib.Path) -> None:
    # In a session of its own: Ctrl-C in this terminal must not close the viewer.
    try:
        subprocess.Popen(
            [viewer, str(film)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        sys.stderr.write(f"{film} could not be opened: {error.strerror}.\n")
