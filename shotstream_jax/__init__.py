"""Streaming multi-shot video generation in JAX: film a story shot by shot.

from shotstream_jax import film_story, load_story, open_model

model = open_model("tiny")
story = load_story("configs/stories/demo.yaml")
film_story(model.networks, story, "film")
"""

from shotstream_jax.directing.filming import film_story
from shotstream_jax.model import Model, open_model
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.stream import Camera, FilmedChunk, stream_story
from shotstream_jax.story import Defaults, Shot, Story, dump_story, load_story

__all__ = [
    "Camera",
    "Defaults",
    "FilmedChunk",
    "Model",
    "Networks",
    "Shot",
    "Story",
    "dump_story",
    "film_story",
    "load_story",
    "open_model",
    "stream_story",
]
