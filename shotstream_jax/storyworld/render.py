"""Frames of a film, painted from its spec: the backdrop, a shadow, and the character on top.

Everything is antialiased by signed distance and vectorised over the video frames of a shot. Only
the part of the frame that the character can touch is repainted; the rest is a copy of the backdrop.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from shotstream_jax.storyworld.character import paint_character
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.motion import SQUASHED, Poses, poses
from shotstream_jax.storyworld.scenery import backdrop
from shotstream_jax.storyworld.shapes import Field, body_extent, coverage, length
from shotstream_jax.storyworld.spec import StorySpec
from shotstream_jax.typing import HostFrames

# 1 + 4 x 5: six latent frames, two chunks of the released three.
VIDEO_FRAMES = 21
PICTURE = Picture()

SHADOW = 0.3
"""Share of the light that the shadow takes."""

# Height of the shadow's ellipse over its width: seen from a little above the ground.
_SHADOW_FLATNESS = 0.22


def render_shot(
    spec: StorySpec,
    shot: int,
    *,
    video_frames: int = VIDEO_FRAMES,
    picture: Picture = PICTURE,
    only: Sequence[int] | None = None,
) -> HostFrames:
    """Paint one shot of `video_frames` frames, or `only` some of its frames.

    Raises:
      IndexError: the story has no such shot, or the shot no such frame.
    """
    plan = spec.shots[shot]
    seen = poses(spec.shape, plan, video_frames, picture)
    if only is not None:
        seen = seen.at(np.asarray(only, np.int64))
    canvas = backdrop(plan.scene, spec.sky, plan.framing, picture)
    top, columns = _touched(spec.shape, seen, picture)
    grid_x, grid_y = picture.grid()
    x, y = grid_x[0, columns][:, None], grid_y[top:]
    cover, paint = paint_character(x, y, seen, spec, picture.height)
    behind = (1 - cover) * (1 - _shadow(x, y, seen, picture.height))
    # `paint` is multiplied by its cover already, so adding it is "over" compositing.
    patch = canvas[top:, columns].swapaxes(0, 1) * behind[..., None] + paint
    frames = np.repeat(_to_uint8(canvas)[None], len(seen.x), axis=0)
    frames[np.arange(len(seen.x))[:, None], top:, columns] = _to_uint8(patch).swapaxes(1, 2)
    return frames


def _touched(
    shape: str, seen: Poses, picture: Picture
) -> tuple[int, Int[np.ndarray, "video_frame column"]]:
    """First row, and the columns in every video frame, that the body or its shadow can reach."""
    # A squashed body is wider by as much as it is lower.
    reach = body_extent(shape) * seen.radius / SQUASHED
    top = max(0, int((seen.y.min() - reach) * picture.height) - 1)
    pixels = int(np.ceil(reach * picture.height)) + 2
    count = min(2 * pixels, picture.width)
    middle = np.round((seen.x + picture.half_width) * picture.height).astype(np.int64)
    first = np.clip(middle - pixels, 0, picture.width - count)
    return top, first[:, None] + np.arange(count)


def _shadow(
    x: Field, y: Field, seen: Poses, height: int
) -> Float[np.ndarray, "video_frame row column"]:
    """Darkness on the ground under the feet, less and tighter the higher they are."""
    # At 1.5 radii, higher than any hop, it has lost 45 % of its darkness and 37 % of its width: it
    # shows height and never vanishes.
    lift = np.clip((seen.floor - seen.y) / seen.radius - 1, 0, 1.5)[:, None, None]
    half = seen.radius * (1 - 0.25 * lift)
    away = length((x - seen.x[:, None, None]) / half, (y - seen.floor) / (_SHADOW_FLATNESS * half))
    distance = (away - 1) * _SHADOW_FLATNESS * half
    # Half the frame's resolution: an edge two pixels soft.
    return SHADOW * (1 - 0.3 * lift) * coverage(distance, height / 2)


def _to_uint8(colour: np.ndarray) -> np.ndarray:
    return np.clip(colour + 0.5, 0, 255).astype(np.uint8)
