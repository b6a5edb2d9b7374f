"""Telling a StoryWorld frame apart: which set it was filmed on, and where the character is.

The empty set is known exactly, so the character is whatever no pixel of the set nearby explains,
shadows on the ground allowed. Colours are RGB in [0, 255].
"""

import functools

import numpy as np
from jaxtyping import Float, UInt8

from shotstream_jax.storyworld.attributes import FRAMINGS, SCENES, SKIES
from shotstream_jax.storyworld.geometry import LENSES, Picture
from shotstream_jax.storyworld.scenery import Canvas, backdrop
from shotstream_jax.storyworld.silhouettes import Mask, fill

Footage = (
    UInt8[np.ndarray, "video_frame height width 3"]
    | Float[np.ndarray, "video_frame height width 3"]
)
"""Frames of a shot: RGB, uint8 in [0, 255] or floating in [-1, 1]."""

Rgbs = Float[np.ndarray, "video_frame height width 3"]
Setting = tuple[str, str, str]
"""Scene, sky and framing."""

SETTINGS: tuple[Setting, ...] = tuple(
    (scene, sky, framing) for scene in SCENES for sky in SKIES for framing in FRAMINGS
)

CELL = 4
"""Pixels along the side of a cell of a coarse image."""

# Sum over channels beyond which a cell is simply not of the set: the character must not outvote it.
_OUTLIER = 120.0

# A set of few colours says little about a change of colour: what it leaves open is no change.
_CONSTANCY = 1e-3
_SET_SHARE = 0.6
_ROUNDS = 3

# RGB distance to the set around a pixel that neither blur nor noise of 0.06 reaches.
_UNEXPLAINED = 34.0
_NEARBY = 5

# A little below what a shadow leaves of the light.
_DARKEST_SHADOW = 0.68

# In frame heights: the crowd of odd pixels that is the character, and how far it can reach.
_CROWD = 0.2
_REACH = 0.5


def to_rgb(footage: Footage) -> Rgbs:
    """The frames in [0, 255], whichever way they are stored."""
    if footage.dtype == np.uint8:
        return footage.astype(np.float32)
    return (np.clip(footage, -1, 1).astype(np.float32) + 1) * 127.5


def smooth(images: Rgbs) -> Rgbs:
    """Blur with the 1-2-1 kernel along rows and columns; the edge repeats."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    down = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return (down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]) / 16


def coarse(images: Rgbs) -> Float[np.ndarray, "video_frame row column 3"]:
    """Mean over cells of `CELL` x `CELL` pixels."""
    count, height, width, _ = images.shape
    cells = images.reshape(count, height // CELL, CELL, width // CELL, CELL, 3)
    return cells.mean((2, 4))


def setting_costs(frames: Rgbs, picture: Picture) -> Float[np.ndarray, "scene sky framing"]:
    """How badly each empty set explains the shot, in RGB steps; far-off pixels count alike."""
    seen = np.median(coarse(frames), axis=0)
    off = np.abs(_coarse_sets(picture) - seen).sum(-1)
    costs = np.minimum(off, _OUTLIER).mean((1, 2))
    return costs.reshape(len(SCENES), len(SKIES), len(FRAMINGS))


def restore_colours(frames: Rgbs, setting: Setting, picture: Picture) -> Rgbs:
    """Undo a fade or a cast: the linear change of colour that gives the set its true colours.

    It is fitted to the cells that fit it best, so that the character has no part in it.
    """
    true = coarse(backdrop(*setting, picture)[None])[0].reshape(-1, 3) / 255
    seen = np.median(coarse(frames), axis=0).reshape(-1, 3) / 255
    seen = np.concatenate([seen, np.ones_like(seen[:, :1])], axis=1)
    change = np.eye(4, 3, dtype=np.float32)
    prior = _CONSTANCY * len(seen) * np.eye(4)
    for _ in range(_ROUNDS):
        off = np.abs(seen @ change - true).sum(-1)
        fits = off <= np.quantile(off, _SET_SHARE)
        change = np.linalg.solve(
            seen[fits].T @ seen[fits] + prior, seen[fits].T @ true[fits] + prior @ np.eye(4, 3)
        ).astype(np.float32)
    return frames @ change[:3] + 255 * change[3]


def find_character(frames: Rgbs, setting: Setting, picture: Picture) -> Mask:
    """The hull of the character in every video frame, empty where there is none."""
    odd = _unexplained(frames, setting, picture) > _UNEXPLAINED
    odd = _count_around(odd, 1) >= 4
    count, height, width = odd.shape
    crowd = _count_around(odd, int(_CROWD * height)).reshape(count, -1).argmax(1)
    row, column = np.unravel_index(crowd, (height, width))
    near_row = np.abs(np.arange(height) - row[:, None]) < _REACH * height
    near_column = np.abs(np.arange(width) - column[:, None]) < _REACH * height
    return fill(odd & near_row[:, :, None] & near_column[:, None, :])


def shadow_rows(framing: str, picture: Picture) -> slice:
    """Rows of the frame that the character's shadow can fall on."""
    lens = LENSES[framing]
    return slice(int((lens.floor - 0.27 * lens.radius) * picture.height), picture.height)


def _unexplained(
    frames: Rgbs, setting: Setting, picture: Picture
) -> Float[np.ndarray, "video_frame height width"]:
    """Distance to the colours of the set around each pixel, in RGB steps."""
    canvas = backdrop(*setting, picture)
    lowest, highest = _range_nearby(setting, picture)
    ground = shadow_rows(setting[2], picture)
    light = np.ones(frames.shape[:3], np.float32)
    brightness = (frames[:, ground] * canvas[ground]).sum(-1) / (canvas[ground] ** 2).sum(-1)
    light[:, ground] = np.clip(brightness, _DARKEST_SHADOW, 1)
    lit = frames / light[..., None]
    off = np.maximum(np.maximum(lit - highest, lowest - lit), 0)
    return np.sqrt((off * off).sum(-1))


def _count_around(mask: Mask, reach: int) -> Float[np.ndarray, "video_frame height width"]:
    """Pixels of the mask within `reach` rows and columns."""
    width = 2 * reach + 1
    padded = np.pad(mask.astype(np.float32), ((0, 0), (reach + 1, reach), (reach + 1, reach)))
    total = padded.cumsum(1).cumsum(2)
    rows = total[:, width:] - total[:, :-width]
    return rows[:, :, width:] - rows[:, :, :-width]


@functools.lru_cache(maxsize=8)
def _coarse_sets(picture: Picture) -> Float[np.ndarray, "setting row column 3"]:
    return coarse(np.stack([backdrop(*setting, picture) for setting in SETTINGS]))


@functools.lru_cache(maxsize=64)
def _range_nearby(setting: Setting, picture: Picture) -> tuple[Canvas, Canvas]:
    """Least and greatest value of each channel of the set around each pixel."""
    margin = _NEARBY // 2
    canvas = np.pad(backdrop(*setting, picture), ((margin,) * 2, (margin,) * 2, (0, 0)), "edge")
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (_NEARBY, _NEARBY), axis=(0, 1))
    return windows.min((-2, -1)), windows.max((-2, -1))
