import functools

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.models.cache import init_cache
from shotstream_jax.models.dit import encode_captions
from shotstream_jax.rollout.chunk import Context, prepare_shot
from shotstream_jax.rollout.shot import rollout_shot
from shotstream_jax.rollout.stream import Camera, plan_for


def scanned(networks, plan, noise):
    """The first shot of a story as one program."""
    how = {"compute": networks.compute}
    text = encode_captions(
        networks.dit, networks.dit_config, networks.encode_text(plan.captions)[None], **how
    )
    window = networks.rollout.window
    cache = init_cache(networks.dit_config, window, text, networks.frame_tokens((32, 48)))
    context = Context(
        latents=jnp.zeros((1, window.context, *noise.shape[4:])),
        shots=jnp.zeros((1, window.context), jnp.int32),
        text=jax.tree.map(lambda x: jnp.repeat(x, window.context, axis=2), text),
    )

    @jax.jit
    def film(dit):
        ready = prepare_shot(dit, networks.dit_config, cache, context, text, **how)
        shot = jnp.asarray(plan.rope_shot)
        return rollout_shot(
            dit, networks.dit_config, ready, shot, noise, rollout=networks.rollout, **how
        )

    return film(networks.dit)


def test_scanned_shot_equals_streamed_shot_byte_for_byte(networks, story):
    camera = Camera(networks, story.defaults.size)
    plan = plan_for(networks, story, 0)
    draw = functools.partial(camera._seeded_noise, take=0)
    noise = jnp.stack([draw(plan, chunk) for chunk in range(plan.chunks)])
    streamed = np.concatenate([piece.latents for piece in camera.film(plan)], axis=1)
    np.testing.assert_array_equal(scanned(networks, plan, noise), streamed)


def test_shot_longer_than_the_local_window_rolls_and_still_agrees(networks, story):
    import dataclasses

    shots = (dataclasses.replace(story.shots[0], chunks=7),)
    long = dataclasses.replace(story, shots=shots)
    test_scanned_shot_equals_streamed_shot_byte_for_byte(networks, long)
