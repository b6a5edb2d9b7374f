"""The attributes of a StoryWorld film, their values, and the colours that stand for them.

An attribute is a name and a short closed tuple of values. `NAMED` attributes appear in captions;
`HIDDEN` ones never do: a later shot can only learn them from the frames of an earlier one.
Colours are RGB in [0, 255].
"""

from collections.abc import Mapping

Rgb = tuple[int, int, int]

# The order of every tuple here is part of the dataset: stories are drawn by index (spec.py), so a
# value moved or inserted changes every film of every seed.
SHAPES = ("circle", "square", "triangle", "star")
PATTERNS = ("dipped", "striped", "split")
SCENES = ("meadow", "desert", "snow", "city")
ACTIONS = ("still", "walk_left", "walk_right", "jump", "spin")
FRAMINGS = ("wide", "medium", "close")

# Hues at least 28 degrees apart (red, orange, yellow are the nearest): the oracle tells bodies by
# hue, because an autoencoder's fading changes saturation and brightness more than hue.
COLOURS: Mapping[str, Rgb] = {
    "red": (226, 44, 52),
    "orange": (250, 120, 18),
    "yellow": (252, 226, 40),
    "green": (36, 156, 66),
    "blue": (38, 84, 226),
    "purple": (146, 52, 190),
}
"""Colour of the body."""

# No trim has the hue of a body colour or lies nearer than 115 RGB steps to one, so that the pattern
# shows on every body. "black" is nearly the ink of the outline and told from it by its place alone.
TRIMS: Mapping[str, Rgb] = {
    "white": (252, 250, 244),
    "black": (44, 40, 52),
    "pink": (255, 118, 192),
    "cyan": (48, 214, 226),
}
"""Hidden: colour in which the pattern is painted."""

# At least 115 RGB steps apart. The tint also colours hills and ground a little (scenery.py), so
# that it can be carried over, and read, in close-ups that show a narrow strip of sky.
SKIES: Mapping[str, Rgb] = {
    "azure": (104, 178, 250),
    "amber": (255, 184, 72),
    "rose": (236, 126, 170),
    "indigo": (74, 70, 146),
}
"""Hidden: tint of the sky, the same in every scene of a story."""

CHARACTER_NAMED: Mapping[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "pattern": PATTERNS,
}
"""Named once, by the global caption."""

SHOT_NAMED: Mapping[str, tuple[str, ...]] = {
    "scene": SCENES,
    "action": ACTIONS,
    "framing": FRAMINGS,
}
"""Named by each shot's caption."""

NAMED: Mapping[str, tuple[str, ...]] = {**CHARACTER_NAMED, **SHOT_NAMED}
HIDDEN: Mapping[str, tuple[str, ...]] = {"trim": tuple(TRIMS), "sky": tuple(SKIES)}
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {**NAMED, **HIDDEN}


def check_value(attribute: str, value: str) -> None:
    """Raises: ValueError: `value` is not one that `attribute` can take."""
    if value not in ATTRIBUTES[attribute]:
        raise ValueError(
            f"{attribute} {value!r} is not in StoryWorld; choose one of {ATTRIBUTES[attribute]}."
        )
