"""Streaming multi-shot video generation in JAX: film a story shot by shot.

from shotstream_jax import film_story, load_story, open_model

model = open_model("tiny")
story = load_story("configs/stories/demo.yaml")
film_story(model, story, "film")

Importing this package imports neither JAX nor Flax: each name below is imported when it is first
asked for.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shotstream_jax.directing.filming import film_story
    from shotstream_jax.model import Model, open_model
    from shotstream_jax.rollout.engine import Engine
    from shotstream_jax.rollout.networks import Networks
    from shotstream_jax.rollout.shot_state import ShotState
    from shotstream_jax.rollout.stream import Camera, FilmedChunk, plan_for, stream_story
    from shotstream_jax.story import Defaults, Shot, Story, dump_story, load_story

__version__ = "0.1.0"

__all__ = [
    "Camera",
    "Defaults",
    "Engine",
    "FilmedChunk",
    "Model",
    "Networks",
    "Shot",
    "ShotState",
    "Story",
    "dump_story",
    "film_story",
    "load_story",
    "open_model",
    "plan_for",
    "stream_story",
]

_HOMES = {
    "Camera": "rollout.stream",
    "Defaults": "story",
    "Engine": "rollout.engine",
    "FilmedChunk": "rollout.stream",
    "Model": "model",
    "Networks": "rollout.networks",
    "Shot": "story",
    "ShotState": "rollout.engine",
    "Story": "story",
    "dump_story": "story",
    "film_story": "directing.filming",
    "load_story": "story",
    "open_model": "model",
    "plan_for": "rollout.stream",
    "stream_story": "rollout.stream",
}
"""The module below this package that defines each public name (PEP 562: names on demand)."""


def __getattr__(name: str) -> object:
    """Import a public name from its module, once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Kept in the module, so that this function is not asked for it again.
    globals()[name] = value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    """Public names are listed before they are imported."""
    return sorted({*globals(), *__all__})
