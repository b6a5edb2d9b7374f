import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange

from shotstream_jax.models.cache import init_cache, write_chunk
from shotstream_jax.models.dit import apply_cached, encode_captions
from shotstream_jax.rollout.chunk import Context, chunk_input, clean_keys, prepare_shot
from shotstream_jax.rollout.shot import rollout_shot
from shotstream_jax.schedule import TRAIN_STEPS, velocity_to_x0
from shotstream_jax.train.objectives.reference_compat import ReferenceCompat
from shotstream_jax.train.objectives.self_forcing import (
    SelfForcing,
    draw_rollout_noise,
    recompute_exit_steps,
    rollout_no_grad,
)

CHUNKS = 3
SHOT = 3
"""The sample that is filmed alone where one will do: the last shot, which remembers most."""


@pytest.fixture(scope="module")
def draw(film_of_four):
    keys = jax.random.split(jax.random.key(3), len(film_of_four.conditioning.shot))
    shape = film_of_four.latents(0, film_of_four.rollout.window.local).shape[1:]
    return draw_rollout_noise(jax.random.key(4), keys, shape, film_of_four.rollout)


def leaving_at(draw, step):
    return dataclasses.replace(draw, exit_step=jnp.asarray(step))


@pytest.fixture(scope="module")
def films(film_of_four):
    """`rollout_no_grad` as programs, by the history."""

    def program(history):
        forcing = SelfForcing(rollout=film_of_four.rollout, history=history)
        return jax.jit(
            functools.partial(rollout_no_grad, config=film_of_four.config, forcing=forcing)
        )

    return {history: program(history) for history in ("exit", "finished")}


@pytest.fixture(scope="module")
def roll_out(film_of_four, films):
    def run(draw, history="exit", conditioning=film_of_four.conditioning):
        return films[history](film_of_four.params, conditioning=conditioning, draw=draw)

    return run


@pytest.fixture(scope="module")
def inferred(film_of_four, draw, pick_sample):
    """Every shot of the batch, filmed by itself as when filming for real."""
    params, config = film_of_four.params, film_of_four.config

    @jax.jit
    def one(conditioning, noise):
        captions = encode_captions(params, config, conditioning.text)
        own = jax.tree.map(lambda x: x[:, :, -1:], captions)
        context = Context(
            latents=conditioning.context,
            shots=conditioning.context_shots,
            text=jax.tree.map(lambda x: x[:, :, :-1], captions),
        )
        cache = init_cache(config, film_of_four.rollout.window, own, frame_tokens=4)
        ready = prepare_shot(params, config, cache, context, own)
        latents, _ = rollout_shot(
            params, config, ready, 0, conditioning.shot[0], noise, rollout=film_of_four.rollout
        )
        return latents

    return jnp.concatenate(
        [
            one(pick_sample(film_of_four.conditioning, shot), draw.noise[:, :, shot : shot + 1])
            for shot in range(len(film_of_four.conditioning.shot))
        ]
    )


def test_a_finished_take_is_the_shot_as_it_is_filmed_for_real(
    film_of_four, roll_out, draw, inferred
):
    steps = len(film_of_four.rollout.steps)
    for exit_step in range(steps):
        result = roll_out(leaving_at(draw, exit_step), "finished")
        np.testing.assert_allclose(result.history, inferred, rtol=1e-4, atol=1e-5)
        early = float(jnp.abs(result.latents - result.history).max())
        assert early == 0 if exit_step == steps - 1 else early > 0.1


def test_leaving_at_the_last_step_is_filming_for_real(film_of_four, roll_out, draw, inferred):
    result = roll_out(leaving_at(draw, len(film_of_four.rollout.steps) - 1))
    np.testing.assert_allclose(result.latents, inferred, rtol=1e-4, atol=1e-5)


def test_what_was_committed_is_the_history(roll_out, draw):
    result = roll_out(leaving_at(draw, 1))
    np.testing.assert_array_equal(result.history, result.latents)
    finished = roll_out(leaving_at(draw, 1), "finished")
    chunk = result.exit_inputs.shape[2]
    # Of the first chunk both make the same; later ones look back on different pasts.
    np.testing.assert_allclose(finished.latents[:, :chunk], result.latents[:, :chunk], atol=1e-5)
    assert jnp.abs(finished.latents - result.latents).max() > 1e-3


def test_a_shot_is_filmed_to_its_own_caption_and_those_of_its_context(film_of_four, roll_out, draw):
    conditioning = film_of_four.conditioning
    own = conditioning.text.shape[1] - 1

    def filmed_with(text):
        return roll_out(draw, conditioning=dataclasses.replace(conditioning, text=text)).latents

    as_it_was = filmed_with(conditioning.text)
    for caption in (own, 0, own - 1):
        moved = filmed_with(conditioning.text.at[:, caption].set(9.0)) - as_it_was
        assert (jnp.abs(moved).max(axis=(1, 2, 3, 4)) > 1e-4).all()
    # Each slot reads its own: captions that differ between two slots may not be exchanged.
    moved = filmed_with(conditioning.text[:, jnp.asarray([1, 0, 2, 3])]) != as_it_was
    assert moved.any(axis=(1, 2, 3, 4)).tolist() == [False, False, True, True]


@pytest.fixture(scope="module")
def one_shot(film_of_four, roll_out, draw, pick_sample):
    """What `recompute_exit_steps` is given for a single shot that leaves at its second step."""
    draw = leaving_at(draw, 1)
    result = roll_out(draw)

    def of_shot(tree):
        return jax.tree.map(lambda x: x[:, SHOT : SHOT + 1], tree)

    cache = dataclasses.replace(
        result.cache, kv=of_shot(result.cache.kv), text=of_shot(result.cache.text)
    )
    alone = dataclasses.replace(
        result,
        latents=result.latents[SHOT:],
        history=result.history[SHOT:],
        exit_inputs=result.exit_inputs[:, SHOT : SHOT + 1],
        cache=cache,
    )
    noise = draw.noise[:, :, SHOT : SHOT + 1]
    conditioning = pick_sample(film_of_four.conditioning, SHOT)
    return conditioning, dataclasses.replace(draw, noise=noise), alone


@pytest.fixture(scope="module")
def pull(film_of_four, one_shot):
    """Recomputed latents, and their gradient in parameters and exit inputs, by cache gradient."""
    conditioning, draw, result = one_shot

    def program(mode):
        forcing = SelfForcing(rollout=film_of_four.rollout)
        compat = ReferenceCompat() if mode == "straight_through" else None

        def latents(params, exit_inputs):
            moved = dataclasses.replace(result, exit_inputs=exit_inputs)
            return recompute_exit_steps(
                params,
                film_of_four.config,
                conditioning,
                moved,
                draw.exit_step,
                forcing=forcing,
                compat=compat,
            )

        @jax.jit
        def run(cotangent):
            out, back = jax.vjp(latents, film_of_four.params, result.exit_inputs)
            return out, *back(cotangent)

        return run

    return {mode: program(mode) for mode in ("detached", "straight_through")}


@pytest.fixture(scope="module")
def cotangent(one_shot):
    """A random direction for chunks `chosen`, zero for the others."""
    latents = one_shot[2].latents
    random = jax.random.normal(jax.random.key(6), latents.shape)
    chunk = jnp.arange(latents.shape[1]) // (latents.shape[1] // CHUNKS)

    def of(*chosen):
        return jnp.where(jnp.isin(chunk, jnp.asarray(chosen))[:, None, None, None], random, 0)

    return of


def test_retaking_changes_no_latents(one_shot, pull, cotangent):
    recomputed = {mode: run(cotangent(0))[0] for mode, run in pull.items()}
    np.testing.assert_allclose(recomputed["detached"], one_shot[2].latents, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(recomputed["straight_through"], recomputed["detached"])


@pytest.mark.parametrize("mode", ["detached", "straight_through"])
def test_gradient_goes_back_through_the_cache_only_if_asked(pull, cotangent, mode):
    _, _, gradient = pull[mode](cotangent(1))
    reached = [bool(chunk.any()) for chunk in gradient]
    assert reached == [mode == "straight_through", True, False]


def test_modes_differ_in_self_attention_where_there_is_a_past(pull, cotangent):
    def kernels(mode, *chosen):
        attention = pull[mode](cotangent(*chosen))[1]["blocks"]["self_attention"]
        return attention["k"]["kernel"]

    first = [kernels(mode, 0) for mode in pull]
    np.testing.assert_allclose(*first, rtol=1e-4, atol=1e-6 * float(jnp.abs(first[0]).max()))
    last = [kernels(mode, 2) for mode in pull]
    assert jnp.abs(last[0] - last[1]).max() > 0.1 * jnp.abs(last[0]).max()


@pytest.fixture(scope="module")
def one_graph(film_of_four, one_shot):
    """The whole rollout in one graph, chunk after chunk, its past cut off the gradient."""
    conditioning, draw, result = one_shot
    config, rollout = film_of_four.config, film_of_four.rollout
    shot, sigma = conditioning.shot[0], float(rollout.sigmas[1])

    def predict(params, cache, chunk, x_t, sigma):
        inputs = chunk_input(config, cache, chunk, shot, x_t, sigma * TRAIN_STEPS)
        velocity = apply_cached(params, config, cache, inputs).velocity
        return velocity_to_x0(x_t, velocity, jnp.asarray(sigma))

    def latents(params):
        text = encode_captions(params, config, conditioning.own_text)
        first = result.cache.window.context * result.cache.frame_tokens
        kv = jax.tree.map(lambda x: x.at[:, :, first:].set(0), result.cache.kv)
        cache, chunks = dataclasses.replace(result.cache, kv=kv, text=text), []
        for chunk in range(CHUNKS):
            noise = draw.noise[chunk]
            x0 = predict(params, cache, chunk, noise[0], float(rollout.sigmas[0]))
            x_t = jax.lax.stop_gradient((1 - sigma) * x0 + sigma * noise[1])
            chunks.append(predict(params, cache, chunk, x_t, sigma))
            keys = clean_keys(params, config, cache, chunk, shot, chunks[-1])
            cache = write_chunk(cache, jax.lax.stop_gradient(keys), chunk)
        return rearrange(jnp.stack(chunks), "chunk batch frame ... -> batch (chunk frame) ...")

    return latents


def test_two_detached_phases_are_one_graph_with_its_past_cut_off(
    film_of_four, one_graph, pull, cotangent
):
    whole = cotangent(0, 1, 2)

    @jax.jit
    def run(params):
        out, back = jax.vjp(one_graph, params)
        return out, back(whole)[0]

    expected, expected_gradient = run(film_of_four.params)
    latents, gradient, _ = pull["detached"](whole)
    np.testing.assert_allclose(latents, expected, rtol=1e-4, atol=1e-5)
    assert gradient["text_in"]["kernel"].any()
    for path, ours in jax.tree_util.tree_leaves_with_path(gradient):
        theirs = functools.reduce(lambda tree, entry: tree[entry.key], path, expected_gradient)
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * scale, err_msg=str(path))


def test_every_step_is_an_exit_and_noise_is_the_samples_own(film_of_four):
    rollout = film_of_four.rollout
    draw = jax.jit(functools.partial(draw_rollout_noise, shape=(4, 2, 2, 4), rollout=rollout))
    samples, keys = jax.random.split(jax.random.key(0), 2), jax.random.split(jax.random.key(1), 64)
    exits = {int(draw(key, samples).exit_step) for key in keys}
    assert exits == set(range(len(rollout.steps)))

    both = draw(keys[0], samples).noise
    assert both.shape == (2, len(rollout.steps), 2, 2, 2, 2, 4)
    np.testing.assert_array_equal(draw(keys[0], samples[1:]).noise[:, :, 0], both[:, :, 1])


def test_what_does_not_fit_is_refused(film_of_four, draw):
    samples = jax.random.split(jax.random.key(0), 2)
    with pytest.raises(ValueError, match="5 latent frames is not whole chunks of 2"):
        draw_rollout_noise(jax.random.key(0), samples, (5, 4, 4, 4), film_of_four.rollout)
    network = film_of_four.params, film_of_four.config
    short = dataclasses.replace(draw, noise=draw.noise[:, :2])
    forcing = SelfForcing(rollout=film_of_four.rollout)
    with pytest.raises(ValueError, match="Noise for 2 steps a chunk, and the rollout has 3"):
        rollout_no_grad(*network, film_of_four.conditioning, short, forcing=forcing)
