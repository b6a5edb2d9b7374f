"""What a director writes: a story of shots, checked the moment it exists.

Shots count from 0. A caption is read by the network after the global caption and the shot's label,
glued together without a separator, as the released weights were trained:
`global` + `shot0:` + `caption`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from shotstream_jax.story.problems import Problem, StoryError
from shotstream_jax.story.schema import schema_problems

FORMAT_VERSION = 2
"""Newest story format; format 1 is read, and filmed, as it always was (see `noise_number`)."""

Transition = Literal["cut", "continue"]
"""A new camera, or more film from the camera of the shot before."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Defaults:
    """What holds for every shot that does not say otherwise.

    Attributes:
      seed: where randomness starts.
      size: height and width in pixels, multiples of 16.
      fps: video frames per second.
      chunks: length of a shot, in chunks of latent frames.
    """

    seed: int = 0
    size: tuple[int, int] = (480, 832)
    fps: int = 16
    chunks: int = 7

    def __post_init__(self) -> None:
        """Raises: StoryError: a value the story schema does not allow."""
        _refuse(schema_problems(_document(self), "defaults"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shot:
    """One camera shot; what is `None` is filled from the story's defaults.

    Attributes:
      caption: what the camera sees.
      seed: where the shot's randomness starts.
      chunks: length in chunks of latent frames.
      transition: whether the camera is a new one.
      id: a name, unlike that of any other shot; `s1`, `s2`, ... by position if none is given.
      take: which rendering of the shot, another for every number; 0 if none is given.
    """

    caption: str
    seed: int | None = None
    chunks: int | None = None
    transition: Transition = "cut"
    id: str | None = None
    take: int | None = None

    def __post_init__(self) -> None:
        """Raises: StoryError: a value the story schema does not allow."""
        _refuse(schema_problems(_document(self), "shot"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Story:
    """A film before it is filmed.

    Attributes:
      title: the name of the film.
      shots: in the order of the film; the first one is a cut.
      global_caption: what holds in every shot, `global` in a story file.
      defaults: what holds for every shot that does not say otherwise.
      version: of the story format.
    """

    title: str
    shots: tuple[Shot, ...]
    global_caption: str = ""
    defaults: Defaults = dataclasses.field(default_factory=Defaults)
    version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Raises: StoryError: a value the story schema does not allow, or two shots of one name."""
        _refuse(schema_problems(self.document()) or _repeated_names(self.shots))

    @classmethod
    def from_document(cls, document: Any) -> "Story":
        """A story from the plain values of a story file.

        Raises:
          StoryError: everything that is wrong with the document, field by field.
        """
        _refuse(schema_problems(document))
        fields = {name: value for name, value in document.items() if name != "global"}
        defaults = _whole_numbers(document.get("defaults", {}))
        if "size" in defaults:
            defaults["size"] = tuple(int(pixels) for pixels in defaults["size"])
        return cls(
            **{
                **_whole_numbers(fields),
                "global_caption": document.get("global", ""),
                "defaults": Defaults(**defaults),
                "shots": tuple(Shot(**_whole_numbers(shot)) for shot in document["shots"]),
            }
        )

    def shot_id(self, index: int) -> str:
        """The lasting name of a shot."""
        return _name(self.shots[index], index)

    def document(self) -> dict[str, Any]:
        """The plain values of a story file; `from_document` undoes it."""
        return {
            "version": self.version,
            "title": self.title,
            "global": self.global_caption,
            "defaults": _document(self.defaults),
            "shots": [_document(shot) for shot in self.shots],
        }

    def resolved(self) -> "Story":
        """The same film with every default written out, so that no later default can change it."""
        shots = tuple(
            dataclasses.replace(
                shot,
                id=_name(shot, index),
                seed=self.defaults.seed if shot.seed is None else shot.seed,
                chunks=self.defaults.chunks if shot.chunks is None else shot.chunks,
            )
            for index, shot in enumerate(self.shots)
        )
        return dataclasses.replace(self, shots=shots)


def full_captions(story: Story) -> tuple[str, ...]:
    """What the text encoder reads for each shot.

    Source: KlingAIResearch/ShotStream, utils/dataset.py (shot text) and Inference_Causal.py.
    """
    return tuple(
        f"{story.global_caption}shot{index}:{shot.caption}"
        for index, shot in enumerate(story.shots)
    )


def _document(part: Defaults | Shot) -> dict[str, Any]:
    plain = dataclasses.asdict(part)
    # JSON knows no tuples, and a shot says nothing about what it leaves to the defaults.
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in plain.items()
        if value is not None
    }


def _whole_numbers(fields: Mapping[str, Any]) -> dict[str, Any]:
    # JSON Schema counts 2.0 as an integer.
    return {k: int(v) if isinstance(v, float) else v for k, v in fields.items()}


def _name(shot: Shot, index: int) -> str:
    return f"s{index + 1}" if shot.id is None else shot.id


def _repeated_names(shots: tuple[Shot, ...]) -> tuple[Problem, ...]:
    owners: dict[str, int] = {}
    problems = []
    for index, shot in enumerate(shots):
        owner = owners.setdefault(_name(shot, index), index)
        if owner != index:
            message = f"shots[{owner}] is called {_name(shot, index)!r} too; rename one of them"
            problems.append(Problem(("shots", index, "id"), message))
    return tuple(problems)


def _refuse(problems: tuple[Problem, ...]) -> None:
    if problems:
        raise StoryError(problems)
