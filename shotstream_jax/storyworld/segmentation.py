"""Segmentation of StoryWorld frames: which set they show, and where the character is.

The empty set is known exactly, so the character is made of the pixels that no pixel of the set
nearby explains, shadows on the ground allowed. Colours are RGB in [0, 255].
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

# Divides every frame size (multiples of 16); a mean of 16 pixels has a quarter of their noise.
CELL = 4
"""Pixels along the side of a cell of a coarse image."""

# Sum over channels beyond which a cell is simply not of the set: a robust loss, since a character
# of strong colour would otherwise outvote a set whose colours are near to another's.
_OUTLIER = 120.0

# Ridge towards the identity: a set of few colours does not determine a change of colour. It is as
# strong as a thousandth of the cells, in colours scaled to [0, 1].
_IDENTITY_PRIOR = 1e-3
# The character covers a quarter of a close-up, with its shadow and edges more; the fit uses what
# fits best, found in three rounds of fitting and choosing again.
_SET_SHARE = 0.6
_ROUNDS = 3

# RGB distance to the set around a pixel that neither blur nor noise of 0.06 reaches. Edges of the
# set, blurred over 2 pixels to either side, stay within the range of colours in 5 x 5 pixels.
_UNEXPLAINED = 34.0
_NEARBY = 5

# A little below what a shadow leaves of the light (1 - render.SHADOW = 0.7).
_DARKEST_SHADOW = 0.68

# In frame heights. The character is where most unexplained pixels lie within 0.2, a body's radius
# in a wide shot. Its farthest tip is 0.44 from its middle in a close-up: pixels beyond 0.5 are not
# its.
_DENSITY_REACH = 0.2
_BODY_REACH = 0.5


def to_rgb(footage: Footage) -> Rgbs:
    """The frames in [0, 255], from uint8 or from [-1, 1]."""
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
    """Mean distance of the shot from each empty set, in RGB steps; outliers count alike."""
    # The median over frames already removes a character that moves on.
    seen = np.median(coarse(frames), axis=0)
    off = np.abs(_coarse_sets(picture) - seen).sum(-1)
    costs = np.minimum(off, _OUTLIER).mean((1, 2))
    return costs.reshape(len(SCENES), len(SKIES), len(FRAMINGS))


def restore_colours(frames: Rgbs, setting: Setting, picture: Picture) -> Rgbs:
    """Undo a fade or a cast: the affine change of colour that gives the set its true colours.

    A trimmed least-squares fit, to the cells that fit best: the character has no part in it.
    """
    true = coarse(backdrop(*setting, picture)[None])[0].reshape(-1, 3) / 255
    seen = np.median(coarse(frames), axis=0).reshape(-1, 3) / 255
    seen = np.concatenate([seen, np.ones_like(seen[:, :1])], axis=1)
    change = np.eye(4, 3, dtype=np.float32)
    prior = _IDENTITY_PRIOR * len(seen) * np.eye(4)
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
    # Four of nine: single pixels of noise go, straight edges (six of nine) stay where they are.
    odd = _count_around(odd, 1) >= 4
    count, height, width = odd.shape
    densest = _count_around(odd, int(_DENSITY_REACH * height)).reshape(count, -1).argmax(1)
    row, column = np.unravel_index(densest, (height, width))
    near_row = np.abs(np.arange(height) - row[:, None]) < _BODY_REACH * height
    near_column = np.abs(np.arange(width) - column[:, None]) < _BODY_REACH * height
    return fill(odd & near_row[:, :, None] & near_column[:, None, :])


def shadow_rows(framing: str, picture: Picture) -> slice:
    """Rows of the frame that the character's shadow can fall on."""
    lens = LENSES[framing]
    # Half the height of the shadow's ellipse (0.22 of its half width), and its soft edge.
    return slice(int((lens.floor - 0.27 * lens.radius) * picture.height), picture.height)


def _unexplained(
    frames: Rgbs, setting: Setting, picture: Picture
) -> Float[np.ndarray, "video_frame height width"]:
    """Distance to the colours of the set around each pixel, in RGB steps."""
    canvas = backdrop(*setting, picture)
    lowest, highest = _range_nearby(setting, picture)
    ground = shadow_rows(setting[2], picture)
    # Least-squares brightness of each pixel against the set's; a shadow darkens, nothing lightens.
    light = np.ones(frames.shape[:3], np.float32)
    brightness = (frames[:, ground] * canvas[ground]).sum(-1) / (canvas[ground] ** 2).sum(-1)
    light[:, ground] = np.clip(brightness, _DARKEST_SHADOW, 1)
    lit = frames / light[..., None]
    off = np.maximum(np.maximum(lit - highest, lowest - lit), 0)
    return np.sqrt((off * off).sum(-1))


def _count_around(mask: Mask, reach: int) -> Float[np.ndarray, "video_frame height width"]:
    """Pixels of the mask within `reach` rows and columns."""
    # Differences of cumulative sums: as fast for a reach of 13 pixels as for one.
    width = 2 * reach + 1
    padded = np.pad(mask.astype(np.float32), ((0, 0), (reach + 1, reach), (reach + 1, reach)))
    total = padded.cumsum(1).cumsum(2)
    rows = total[:, width:] - total[:, :-width]
    return rows[:, :, width:] - rows[:, :, :-width]


# 48 coarse sets are 221 KB at 64x96; eight sizes of picture are more than a process scores.
@functools.lru_cache(maxsize=8)
def _coarse_sets(picture: Picture) -> Float[np.ndarray, "setting row column 3"]:
    return coarse(np.stack([backdrop(*setting, picture) for setting in SETTINGS]))


# All 48 settings of one size of picture.
@functools.lru_cache(maxsize=64)
def _range_nearby(setting: Setting, picture: Picture) -> tuple[Canvas, Canvas]:
    """Least and greatest value of each channel of the set around each pixel."""
    margin = _NEARBY // 2
    canvas = np.pad(backdrop(*setting, picture), ((margin,) * 2, (margin,) * 2, (0, 0)), "edge")
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (_NEARBY, _NEARBY), axis=(0, 1))
    return windows.min((-2, -1)), windows.max((-2, -1))
