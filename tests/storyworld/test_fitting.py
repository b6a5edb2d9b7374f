"""A look is found by its layers, and turning by its pace."""

import numpy as np
import pytest

from shotstream_jax.storyworld.attributes import PATTERNS, SHAPES
from shotstream_jax.storyworld.fitting import fit_templates
from shotstream_jax.storyworld.motion import TURN_SECONDS
from shotstream_jax.storyworld.silhouettes import ANGLES, templates

SECONDS = np.arange(21) / 8
COLOURS = np.asarray([[200, 40, 40], [60, 210, 220], [40, 40, 60], [255, 255, 255]], np.float32)


def patches(shape: int, pattern: int, pace: float) -> tuple[np.ndarray, np.ndarray]:
    """A body on a green ground, turning at `pace`."""
    looks = templates()
    turn = np.round(pace * SECONDS / TURN_SECONDS * ANGLES).astype(int) % ANGLES
    layers = looks.layers[:, shape, pattern, turn]
    ground = (1 - layers.sum(0))[..., None] * np.asarray([90, 180, 90], np.float32)
    colours = np.einsum("lfp,lc->fpc", layers, COLOURS) + ground
    return colours.astype(np.float32), looks.inside[shape, turn].astype(np.float32)


@pytest.mark.parametrize("pace", [-1.0, 0.0, 0.75, 1.0])
@pytest.mark.parametrize("pattern", range(len(PATTERNS)))
@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_a_drawn_look_is_found_with_its_pace_and_colours(shape, pattern, pace):
    fit = fit_templates(*patches(shape, pattern, pace), SECONDS)
    assert (fit.shape, fit.pattern) == (shape, pattern)
    assert fit.pace == pytest.approx(pace, abs=0.051)
    # Soft edges mix a little of each neighbour in.
    assert np.linalg.norm(fit.paint - COLOURS[0]) < 60
    assert np.linalg.norm(fit.trim - COLOURS[1]) < 60


def test_the_costs_are_least_for_the_look_that_was_found():
    fit = fit_templates(*patches(1, 2, 0.0), SECONDS)
    assert np.unravel_index(fit.costs.argmin(), fit.costs.shape) == (1, 2)
    assert fit.costs.shape == (len(SHAPES), len(PATTERNS))
