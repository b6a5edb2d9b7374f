"""Captions of StoryWorld films: from a spec to text, and back.

The global caption names the character, a shot's caption its scene, action and framing; trim and
sky are never named, and the wording is drawn independently of them. Words come from a closed
`VOCABULARY`, in lower case, punctuation apart from words.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from shotstream_jax.story import Defaults, Shot, Story
from shotstream_jax.storyworld.attributes import CHARACTER_NAMED, COLOURS, SHOT_NAMED
from shotstream_jax.storyworld.spec import MAX_SHOTS, ShotSpec, StorySpec, sample_story

PHRASES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "shape": {
        "circle": ("circle", "ball"),
        "square": ("square", "box"),
        "triangle": ("triangle", "pyramid"),
        "star": ("star",),
    },
    "colour": {colour: (colour,) for colour in COLOURS},
    "pattern": {
        "dipped": ("dipped", "layered"),
        "striped": ("striped", "banded"),
        "split": ("split", "halved"),
    },
    "scene": {
        "meadow": ("meadow", "grassland"),
        "desert": ("desert", "dunes"),
        "snow": ("snow", "tundra"),
        "city": ("city", "town"),
    },
    "action": {
        "still": ("stands still", "waits", "rests"),
        "walk_left": ("walks left", "walks to the left", "heads left"),
        "walk_right": ("walks right", "walks to the right", "heads right"),
        "jump": ("jumps", "hops", "jumps up and down"),
        "spin": ("spins", "twirls", "spins round and round"),
    },
    "framing": {
        "wide": ("wide shot", "long shot", "far view"),
        "medium": ("medium shot", "mid shot", "middle view"),
        "close": ("close shot", "close up", "near view"),
    },
}
"""Every phrase for a value; no phrase of one value is found in a phrase of another."""

# Several phrases a value and several templates, in different orders of attributes, so that a text
# encoder must learn words and not positions.
GLOBAL_TEMPLATES = (
    "the {pattern} {colour} {shape}.",
    "our hero is a {pattern} {colour} {shape}.",
    "a story about the {pattern} {colour} {shape}.",
    "meet the {colour} {shape}, it is {pattern}.",
    "the hero is a {shape}, {colour} and {pattern}.",
)
SHOT_TEMPLATES = (
    "{framing}, it {action} in the {scene}.",
    "in the {scene} it {action}, {framing}.",
    "{framing} of the {scene}, the hero {action}.",
    "the {scene}, {framing}, the hero {action}.",
    "the hero {action} in the {scene}, {framing}.",
)

NamedValues = Mapping[str, str]
"""The value of every attribute that a caption names."""


def _tokens(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())


def _closed_vocabulary() -> tuple[str, ...]:
    plain = [re.sub(r"{\w+}", " ", t) for t in (*GLOBAL_TEMPLATES, *SHOT_TEMPLATES)]
    phrases = [phrase for values in PHRASES.values() for some in values.values() for phrase in some]
    labels = [f"shot{index}:" for index in range(MAX_SHOTS)]
    # Sorted: token ids follow this order, and a set of strings has another order in every process.
    return tuple(sorted({token for text in (*plain, *phrases, *labels) for token in _tokens(text)}))


VOCABULARY = _closed_vocabulary()
"""Every word, shot label and punctuation mark that a StoryWorld prompt can hold."""


def global_caption(spec: StorySpec) -> str:
    """Name the character."""
    return _fill_template(GLOBAL_TEMPLATES, CHARACTER_NAMED, spec)


def shot_caption(spec: StorySpec, shot: int) -> str:
    """Name the scene, the action and the framing of one shot.

    Raises:
      IndexError: the story has no such shot.
    """
    return _fill_template(SHOT_TEMPLATES, SHOT_NAMED, spec.shots[shot])


def to_story(spec: StorySpec, title: str, defaults: Defaults) -> Story:
    """The film as a story to be filmed: its captions and nothing else of the spec."""
    shots = tuple(Shot(caption=shot_caption(spec, k)) for k in range(len(spec.shots)))
    # Format 1, in which the noise of every published score was drawn.
    return Story(
        title=title,
        global_caption=global_caption(spec),
        shots=shots,
        defaults=defaults,
        version=1,
    )


def prompts(spec: StorySpec) -> tuple[str, ...]:
    """What the text encoder reads for each shot: the full captions of `to_story`, unvalidated.

    Loaders call this for every film, and checking a story takes longer than painting a shot.
    """
    shared = global_caption(spec)
    return tuple(f"{shared}shot{k}:{shot_caption(spec, k)}" for k in range(len(spec.shots)))


def read_caption(caption: str) -> NamedValues:
    """Find the attributes that a caption names, by their phrases; the longest phrase wins."""
    # Spaces around text and phrase: only whole words match.
    text = " " + " ".join(_tokens(caption)) + " "
    found: dict[str, str] = {}
    for attribute, values in PHRASES.items():
        hits = [
            (p, value) for value, phrases in values.items() for p in phrases if f" {p} " in text
        ]
        if hits:
            found[attribute] = max(hits, key=lambda hit: len(hit[0]))[1]
    return found


def parse_story(written: str, shots: Sequence[str], *, seed: int = 0) -> StorySpec:
    """Parse a global caption and shot captions into a whole spec.

    What captions do not name (trim, sky, where the character stands) is drawn from `seed`.

    Raises:
      ValueError: a caption that leaves out an attribute, with the attribute and its values.
    """
    drawn = sample_story(seed, len(shots))
    story = read_caption(written)
    plans = [
        dataclasses.replace(plan, **_named({**story, **read_caption(text)}, SHOT_NAMED, text))
        for plan, text in zip(drawn.shots, shots, strict=True)
    ]
    character = _named(story, CHARACTER_NAMED, written)
    return dataclasses.replace(drawn, shots=tuple(plans), **character)


def _fill_template(
    templates: tuple[str, ...],
    attributes: Mapping[str, tuple[str, ...]],
    spec: StorySpec | ShotSpec,
) -> str:
    # A seed of its own: the wording says nothing of trim and sky, which are drawn elsewhere.
    rng = np.random.default_rng(spec.wording)
    template = _pick(rng, templates)
    phrases = {name: _pick(rng, PHRASES[name][getattr(spec, name)]) for name in attributes}
    return template.format(**phrases)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _named(
    found: NamedValues, attributes: Mapping[str, tuple[str, ...]], caption: str
) -> dict[str, str]:
    for name, values in attributes.items():
        if name not in found:
            raise ValueError(
                f"Caption {caption!r} names no {name} of StoryWorld; say one of {values}."
            )
    return {name: found[name] for name in attributes}
