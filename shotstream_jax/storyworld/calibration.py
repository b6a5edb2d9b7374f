"""Accuracy of the oracle on films whose truth is known; to be printed beside every score."""

from collections.abc import Callable, Iterable

import numpy as np

from shotstream_jax.storyworld.attributes import ATTRIBUTES
from shotstream_jax.storyworld.film_score import cut_accuracy
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.oracle import observe_shot
from shotstream_jax.storyworld.render import PICTURE, VIDEO_FRAMES, render_shot
from shotstream_jax.storyworld.spec import StorySpec, true_value
from shotstream_jax.typing import HostFrames

Corrupt = Callable[[HostFrames], HostFrames]
"""What is done to the frames of a shot before they are measured."""


def oracle_accuracy(
    stories: Iterable[StorySpec],
    *,
    corrupt: Corrupt = lambda frames: frames,
    picture: Picture = PICTURE,
    video_frames: int = VIDEO_FRAMES,
) -> dict[str, float]:
    """Share of shots in which each attribute is measured correctly, and mean accuracy of cuts."""
    # Cuts need all shots of a film at once; attributes are a shot's own.
    hits: dict[str, list[float]] = {name: [] for name in (*ATTRIBUTES, "cuts")}
    for spec in stories:
        shots = range(len(spec.shots))
        film = [
            corrupt(render_shot(spec, k, video_frames=video_frames, picture=picture)) for k in shots
        ]
        hits["cuts"].append(cut_accuracy(film))
        for shot, frames in zip(shots, film, strict=True):
            for name, value in observe_shot(frames).values.items():
                hits[name].append(value == true_value(spec, shot, name))
    return {name: float(np.mean(part)) for name, part in hits.items()}
