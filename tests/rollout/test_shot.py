import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models.cache import init_cache
from shotstream_jax.models.dit import encode_captions
from shotstream_jax.rollout.chunk import Context, prepare_shot
from shotstream_jax.rollout.shot import rollout_shot
from shotstream_jax.rollout.stream import Camera, plan_for

encode = jax.jit(encode_captions, static_argnames=("config", "compute"))
prepare = jax.jit(prepare_shot, static_argnames=("config", "compute"))
film = jax.jit(rollout_shot, static_argnames=("config", "compute", "rollout"))


def scanned(networks, plan, noise):
    """The first shot of a story, all chunks in one program."""
    sizes = networks.dit, networks.config.dit
    text = encode(*sizes, networks.encode_text(plan.captions)[None])
    window = networks.config.rollout.window
    cache = init_cache(networks.config.dit, window, text, networks.config.frame_tokens((32, 48)))
    context = Context(
        latents=jnp.zeros((1, window.context, *noise.shape[4:])),
        shots=jnp.zeros((1, window.context), jnp.int32),
        text=jax.tree.map(lambda x: jnp.repeat(x, window.context, axis=2), text),
    )
    ready = prepare(*sizes, cache, context, text)
    return film(*sizes, ready, plan.rope_shot, noise, rollout=networks.config.rollout)


# Seven chunks are more than the local window holds: the cache rolls.
@pytest.mark.parametrize("chunks", [1, 3, 7])
def test_scanned_shot_equals_streamed_shot_byte_for_byte(networks, story, chunks):
    shot = dataclasses.replace(story.shots[0], chunks=chunks)
    story = dataclasses.replace(story, shots=(shot,))
    camera = Camera(networks, story.defaults.size)
    plan = plan_for(networks, story, 0)
    draw = functools.partial(camera._seeded_noise, take=0)
    noise = jnp.stack([draw(plan, chunk) for chunk in range(chunks)])
    streamed = np.concatenate([piece.latents for piece in camera.film(plan)], axis=1)
    np.testing.assert_array_equal(scanned(networks, plan, noise), streamed)
