"""How an action moves the character: one pose a video frame.

Cycles (hops, steps, turns) run in seconds, so they look the same in clips of any length; a walk
takes the whole clip to cross the room it has, so that the character never leaves the frame.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Int

from shotstream_jax.storyworld.geometry import ACTION_FPS, LENSES, Picture
from shotstream_jax.storyworld.shapes import body_extent, body_foot
from shotstream_jax.storyworld.spec import ShotSpec

Track = Float[np.ndarray, " video_frame"]

# 20 frames a turn, 18 degrees a frame: slow enough that a square, which looks the same after 90, is
# not mistaken for one that turns the other way.
TURN_SECONDS = 2.5
"""One turn of a spin."""

HOP_SECONDS = 1.25
"""One hop, ground to ground: every clip of nine frames shows most of one."""

# 6 and 12 frames: the shortest clips, of nine, hold a whole step.
STEP_SECONDS = 0.75
BREATH_SECONDS = 1.5

# Flight lengthens little, since a close-up's headroom for hops shrinks with it.
SQUASHED, TALLEST = 0.9, 1.03
"""Least and greatest stretch of a body, on landing and in flight."""

# All in frame heights (the waddle in radians).
_MARGIN = 0.03  # two pixels at 64 rows between a body and the edge of the frame
_WALK = 0.36  # to either side of the middle, at most: a wider picture makes no faster walk
_WANDER = 0.12  # where those stand that do not walk: a third of a walk, so position says no action
_HOP = 0.24  # about one body radius; in close-ups the headroom limits it
_BOB, _WADDLE = 0.012, 0.1  # under a pixel and 6 degrees: seen as walking, not as jump or spin
_BREATH = 0.025  # a quarter of the squash of a landing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Poses:
    """Where the body is in every video frame; lengths in frame heights, see geometry.py.

    Attributes:
      x: middle of the body.
      y: middle of the body.
      angle: clockwise rotation in radians.
      stretch: height of the body over its resting height; its area stays the same.
      radius: body radius.
      floor: height of the ground under the feet.
      gaze: where the eyes look, -1 is left and 1 is right.
    """

    x: Track
    y: Track
    angle: Track
    stretch: Track
    radius: float
    floor: float
    gaze: float

    def at(self, video_frames: Int[np.ndarray, " chosen"]) -> "Poses":
        """The poses of some video frames."""
        tracks = {f: getattr(self, f)[video_frames] for f in ("x", "y", "angle", "stretch")}
        return dataclasses.replace(self, **tracks)


def poses(shape: str, shot: ShotSpec, video_frames: int, picture: Picture) -> Poses:
    """The pose of the character in every video frame of a shot."""
    lens = LENSES[shot.framing]
    radius = lens.radius * shot.scale
    reach, foot = body_extent(shape) * radius, body_foot(shape) * radius
    seconds = np.arange(video_frames, dtype=np.float32) / ACTION_FPS
    zero = np.zeros_like(seconds)
    x, lift, angle = zero + _WANDER * shot.offset, zero, zero
    stretch, gaze = zero + 1, 0.0
    match shot.action:
        case "still":
            stretch = 1 + _BREATH * np.sin(2 * math.pi * (seconds / BREATH_SECONDS + shot.phase))
        case "walk_left" | "walk_right":
            gaze = 1.0 if shot.action == "walk_right" else -1.0
            # A narrow frame shortens the walk instead of letting the body leave the picture.
            room = picture.half_width - reach - _MARGIN
            x = gaze * min(room, _WALK) * np.linspace(-1, 1, video_frames, dtype=np.float32)
            step = np.sin(2 * math.pi * (seconds / STEP_SECONDS + shot.phase))
            lift, angle = _BOB * np.abs(step), _WADDLE * step
        case "jump":
            headroom = lens.floor - TALLEST * (foot + reach) - _MARGIN
            # |sin| has a kink where it touches the ground, as a ball has that bounces.
            flight = np.abs(np.sin(math.pi * (seconds / HOP_SECONDS + shot.phase)))
            lift = min(_HOP, headroom) * flight
            stretch = np.minimum(SQUASHED + flight / 4, TALLEST)
        case "spin":
            # Raised until its farthest corner just touches the ground at every angle.
            lift, angle = zero + reach - foot, 2 * math.pi * seconds / TURN_SECONDS
    return Poses(
        x=x,
        y=lens.floor - foot * stretch - lift,
        angle=angle,
        stretch=stretch,
        radius=radius,
        floor=lens.floor,
        gaze=gaze,
    )
