"""Positions and sizes in a frame: the geometry that painter and oracle share.

Lengths are fractions of the frame height, so a film looks the same at any size. `x` runs right
from the middle of the frame, `y` runs down from its top edge.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

# A clip of 21 frames, 2.6 seconds, holds two hops or one spin.
ACTION_FPS = 8.0
"""Video frames a second; motions are timed by it."""

# Leaves the widest body (triangle, close) 0.14 of a frame height to either side: just the shortest
# walk that the oracle still reads as one.
MIN_ASPECT = 1.25
"""Narrower frames leave no room to walk in a close-up."""


@dataclasses.dataclass(frozen=True)
class Lens:
    """Sizes and heights of one framing, in frame heights.

    Attributes:
      radius: radius of the character's body.
      floor: height at which the character stands.
      horizon: height of the far edge of the ground.
      zoom: size of the landmark, relative to the wide framing.
    """

    radius: float
    floor: float
    horizon: float
    zoom: float


# Radii grow by 1.276 each: sizes are compared by logarithm, where the steps are even (0.24) and
# eight times the spread of a shot's own scale (3 %). Floor and horizon sink as the camera nears, so
# that a cut within a scene, which changes the framing alone, shows in nearly every column.
LENSES = {
    "wide": Lens(radius=0.21, floor=0.84, horizon=0.56, zoom=1.0),
    "medium": Lens(radius=0.268, floor=0.89, horizon=0.65, zoom=1.3),
    "close": Lens(radius=0.342, floor=0.94, horizon=0.75, zoom=1.7),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """Size of a video frame in pixels.

    Raises:
      ValueError: a frame size that StoryWorld does not support.
    """

    height: int = 64
    width: int = 96

    def __post_init__(self) -> None:
        """Refuse what does not tile into 16-pixel blocks or leaves no room to walk."""
        # 16 is the autoencoder's spatial stride times the transformer's patch.
        if self.height < 16 or self.height % 16 or self.width % 16:
            raise ValueError(
                f"A StoryWorld frame of {self.height}x{self.width} pixels does not tile into "
                "16x16 blocks; choose multiples of 16."
            )
        if self.width < MIN_ASPECT * self.height:
            raise ValueError(
                f"A StoryWorld frame of {self.height}x{self.width} pixels is too narrow to walk "
                f"in; make it at least {MIN_ASPECT:g} times as wide as high."
            )

    @property
    def half_width(self) -> float:
        """Distance from the middle to the side edges, in frame heights."""
        return self.width / (2 * self.height)

    def grid(self) -> tuple[Float[np.ndarray, "1 width"], Float[np.ndarray, "height 1"]]:
        """Coordinates of the pixel centres, ready to broadcast."""
        x = (np.arange(self.width, dtype=np.float32) + 0.5) / self.height - self.half_width
        y = (np.arange(self.height, dtype=np.float32) + 0.5) / self.height
        return x[None, :], y[:, None]
