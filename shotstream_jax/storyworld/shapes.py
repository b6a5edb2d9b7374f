"""Signed distances and their antialiased coverage: the only drawing primitives of StoryWorld.

Distances are negative inside. Points are `(x, y)`, y downward, in any unit; `coverage` takes the
pixels that one unit spans.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

Field = Float[np.ndarray, "..."]


@dataclasses.dataclass(frozen=True)
class Outline:
    """A rounded star around the origin; regular polygons are stars without inlets.

    Attributes:
      points: tips, evenly spaced, the first one straight up; 0 is a circle.
      outer: distance of the tips before rounding, in body radii.
      inner: distance of the vertices between them, in body radii.
      rounding: radius of every corner, in body radii.
      turn: rotation away from "tip up", in fractions of the angle between two tips.
    """

    points: int
    outer: float
    inner: float = 0.0
    rounding: float = 0.0
    turn: float = 0.0


# Roundings keep corners antialiased at 13 pixels a radius and tell shapes by outline, not by
# corners, which blur first. Square and circle have the same area to 0.3 %; triangle and star have
# 0.87 of it, since their tips reach out to 1.29 and 1.19 already.
BODIES = {
    "circle": Outline(points=0, outer=1.0),
    "square": Outline(
        points=4, outer=1.02, inner=1.02 * math.cos(math.pi / 4), rounding=0.17, turn=0.5
    ),
    "triangle": Outline(points=3, outer=1.12, inner=0.56, rounding=0.17),
    "star": Outline(points=5, outer=1.0, inner=0.48, rounding=0.19),
}
"""Bodies of like area; the unit is the body radius."""


def length(x: Field, y: Field) -> Field:
    """Euclidean length; a plain square root is several times faster than `np.hypot`."""
    return np.sqrt(x * x + y * y)


def body_extent(shape: str) -> float:
    """Distance of the farthest point of the body from its middle, in body radii."""
    return BODIES[shape].outer + BODIES[shape].rounding


def body_foot(shape: str) -> float:
    """Depth of the lowest point of the upright body below its middle, in body radii."""
    outline = BODIES[shape]
    if outline.points == 0:
        return outline.outer
    sector = 2 * math.pi / outline.points
    tips = (-math.cos((k - outline.turn) * sector) for k in range(outline.points))
    return outline.outer * max(tips) + outline.rounding


def body_distance(shape: str, x: Field, y: Field) -> Field:
    """Distance to the outline of `shape`, in body radii."""
    outline = BODIES[shape]
    radius = length(x, y)
    if outline.points == 0:
        return radius - outline.outer
    half_sector = math.pi / outline.points
    # By symmetry every point is folded into half a sector, so that one edge is left to measure to.
    angle = np.arctan2(x, -y) + outline.turn * 2 * half_sector
    folded = np.abs((angle + half_sector) % (2 * half_sector) - half_sector)
    return _edge_distance(outline, radius * np.cos(folded), radius * np.sin(folded))


def _edge_distance(outline: Outline, along: Field, across: Field) -> Field:
    """Distance to the edge from a tip `(outer, 0)` to the neighbouring inner vertex."""
    half_sector = math.pi / outline.points
    edge_x = outline.inner * math.cos(half_sector) - outline.outer
    edge_y = outline.inner * math.sin(half_sector)
    from_tip = along - outline.outer
    share = np.clip((from_tip * edge_x + across * edge_y) / (edge_x**2 + edge_y**2), 0.0, 1.0)
    distance = length(from_tip - share * edge_x, across - share * edge_y)
    outside = edge_x * across - edge_y * from_tip < 0
    return np.where(outside, distance, -distance) - outline.rounding


def ellipse_distance(
    x: Field, y: Field, center: tuple[Field | float, Field | float], radii: tuple[float, float]
) -> Field:
    """Distance to an axis-aligned ellipse, exact for circles and close for round ellipses."""
    # The shorter radius makes it a lower bound: edges on the long axis are softer, never jagged.
    return (length((x - center[0]) / radii[0], (y - center[1]) / radii[1]) - 1.0) * min(radii)


def box_distance(
    x: Field,
    y: Field,
    center: tuple[float, float],
    half: tuple[float, float],
    rounding: float = 0.0,
) -> Field:
    """Distance to a box with rounded corners; `half` are its half width and half height."""
    over_x = np.abs(x - center[0]) - (half[0] - rounding)
    over_y = np.abs(y - center[1]) - (half[1] - rounding)
    outside = length(np.maximum(over_x, 0.0), np.maximum(over_y, 0.0))
    return outside + np.minimum(np.maximum(over_x, over_y), 0.0) - rounding


def coverage(distance: Field, pixels_per_unit: Field | float) -> Field:
    """Share of a pixel that lies inside, by its centre's distance to the edge."""
    # A straight edge through a pixel: linear between half a pixel outside and half a pixel inside.
    return np.clip(0.5 - distance * pixels_per_unit, 0.0, 1.0)
