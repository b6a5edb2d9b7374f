"""Losses and gradients of every training stage, against the recorded ones, by official name."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from einops import rearrange

from shotstream_jax.checkpoints.names_dit import dit_names
from shotstream_jax.checkpoints.param_trees import export_params
from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.cache import Window
from shotstream_jax.rollout.conditioning import Conditioning
from shotstream_jax.schedule import FlowNoise, FlowSchedule
from shotstream_jax.train.objectives.causal_init import OdePair, causal_init_loss
from shotstream_jax.train.objectives.dmd import (
    DMDConfig,
    ScoreNetworks,
    critic_loss,
    dmd_direction,
    dmd_loss,
)
from shotstream_jax.train.objectives.flow_matching import Clip, teacher_loss
from shotstream_jax.train.objectives.reference_compat import ReferenceCompat, clamped_timesteps
from shotstream_jax.train.objectives.self_forcing import (
    RolloutNoise,
    SelfForcing,
    recompute_exit_steps,
    rollout_no_grad,
)

CHUNK = 3
EXITS = (0, 1, 2, 3)
SCORED = (0, 1, 2)
DMD = DMDConfig(guidance=1 + 3.0)
TIMESTEPS = clamped_timesteps(DMD.schedule, DMD.timesteps)


def ours(recorded):
    return jnp.asarray(rearrange(recorded, "... chan row col -> ... row col chan"))


def theirs(latents):
    return rearrange(np.asarray(latents), "... row col chan -> ... chan row col")


@pytest.fixture(scope="module")
def recorded(golden):
    return golden.arrays("train_golden")


@pytest.fixture(scope="module")
def conditioning(recorded):
    """The reference has one number a frame for both the rotation and the caption."""
    context = ours(recorded["context_latents"])
    flags = jnp.asarray(recorded["flags"])[None]
    slots = context.shape[1]
    return Conditioning(
        context=context,
        context_shots=flags[:, :slots],
        shot=flags[:, -1],
        text=jnp.asarray(recorded["ctx"])[jnp.append(flags[:, :slots], flags[:, -1:], axis=1)],
    )


@pytest.fixture(scope="module")
def rollout(recorded):
    context, frames = recorded["context_latents"].shape[1], recorded["clean_latents"].shape[1]
    return RolloutConfig(window=Window(chunk=CHUNK, context=context, local=frames))


@pytest.fixture
def agree_gradients(recorded, dit_config, agree):
    """All recorded gradients of a run, and the norm over all parameters."""

    def check(tag, gradients):
        ours_by_name = dict(export_params(dit_names(dit_config), gradients))
        names = [key for key in recorded if key.startswith(f"{tag}_grad:")]
        assert names
        for key in names:
            agree(ours_by_name[key.split(":")[1]], recorded[key])
        agree(optax.tree.norm(gradients), recorded[f"{tag}_gradnorm"])

    return check


def test_recording_holds_the_runs_that_are_replayed(recorded):
    runs = {m[1] for key in recorded if (m := re.match(r"([a-z]+\d*)_gradnorm$", key))}
    numbered = {f"rollout{i}" for i in EXITS} | {
        f"{x}{i}" for x in ("dmd", "critic") for i in SCORED
    }
    assert runs == {"flow", "ode"} | numbered


def flow_draw(recorded, tag, timesteps):
    return FlowNoise(
        timesteps=jnp.asarray(timesteps)[recorded[f"{tag}_timestep_id"]][None],
        noise=ours(recorded[f"{tag}_noise"]),
    )


def test_teacher(recorded, conditioning, dit_params, dit_config, agree, agree_gradients):
    schedule = FlowSchedule()
    clip = Clip(conditioning=conditioning, latents=ours(recorded["clean_latents"]))
    draw = flow_draw(recorded, "flow", schedule.timesteps)
    how = {"config": dit_config, "clip": clip, "draw": draw, "schedule": schedule}
    loss = jax.jit(jax.value_and_grad(functools.partial(teacher_loss, **how), has_aux=True))
    (value, _), gradients = loss(dit_params)
    agree(value[None], recorded["flow_loss"])
    agree_gradients("flow", gradients)


def test_causal_init(
    recorded, conditioning, rollout, dit_params, dit_config, agree, agree_gradients
):
    pair = OdePair(conditioning=conditioning, trajectory=ours(recorded["ode_trajectory"]))
    levels = jnp.asarray(recorded["ode_index"])[:, ::CHUNK]
    how = {"config": dit_config, "pair": pair, "levels": levels, "rollout": rollout}
    loss = jax.jit(jax.value_and_grad(functools.partial(causal_init_loss, **how), has_aux=True))
    (value, errors), gradients = loss(dit_params)
    agree(value, recorded["ode_loss"])
    agree(errors.mean(axis=1), recorded["ode_unnormalized"])
    agree_gradients("ode", gradients)


@pytest.fixture(scope="module")
def replay(recorded, conditioning, rollout, dit_config):
    """One program for all exit steps: latents, and gradients of their recorded projection."""
    forcing = SelfForcing(rollout=rollout)
    cotangent = ours(recorded["rollout_cotangent"])

    def project(params, draw, clean_pass_noise):
        how = {"forcing": forcing, "compat": ReferenceCompat(clean_pass_noise=clean_pass_noise)}
        result = rollout_no_grad(params, dit_config, conditioning, draw, **how)
        latents = recompute_exit_steps(
            params, dit_config, conditioning, result, draw.exit_step, **how
        )
        return jnp.sum(latents * cotangent), (latents, result.latents)

    return jax.jit(jax.grad(project, has_aux=True))


def rollout_draw(recorded, exit_step):
    """Recorded noise of the steps that were run, and of the clean pass after them."""
    first = rearrange(
        ours(recorded[f"rollout{exit_step}_noise"]),
        "batch (chunk frame) ... -> chunk 1 batch frame ...",
        frame=CHUNK,
    )
    renoise = ours(recorded[f"rollout{exit_step}_renoise"])
    never_run = jnp.zeros_like(jnp.repeat(first, len(EXITS) - 1 - exit_step, axis=1))
    draw = RolloutNoise(
        noise=jnp.concatenate([first, renoise[:, :-1], never_run], axis=1),
        exit_step=jnp.asarray(exit_step),
    )
    return draw, renoise[:, -1]


@pytest.mark.parametrize("exit_step", EXITS)
def test_self_forcing(recorded, rollout, replay, dit_params, agree, agree_gradients, exit_step):
    leaves_at, goes_to = recorded[f"rollout{exit_step}_from_to"]
    assert (*rollout.steps, 0)[exit_step : exit_step + 2] == (leaves_at, goes_to)

    gradients, (recomputed, rolled_out) = replay(dit_params, *rollout_draw(recorded, exit_step))
    agree(theirs(recomputed), recorded[f"rollout{exit_step}_latents"])
    agree(theirs(rolled_out), recorded[f"rollout{exit_step}_latents"])
    agree_gradients(f"rollout{exit_step}", gradients)


@pytest.fixture(scope="module")
def fake_params(load_dit):
    return load_dit("dit_fake.safetensors")


@pytest.fixture(scope="module")
def score(recorded, conditioning, dit_config):
    """The generator's loss as a function of its latents, with their gradient."""
    negative = jnp.asarray(recorded["neg"])[None]

    def loss(latents, scores, draw):
        direction = dmd_direction(
            latents, dit_config, scores, conditioning, negative, draw, dmd=DMD
        )
        return dmd_loss(latents, direction), direction

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.mark.parametrize("run", SCORED)
def test_distribution_matching(recorded, score, dit_params, fake_params, agree, run):
    tag = f"dmd{run}"
    draw = flow_draw(recorded, tag, TIMESTEPS)
    frames = recorded[f"{tag}_timestep"].shape[1]
    np.testing.assert_array_equal(
        np.repeat(draw.timesteps[:, None], frames, axis=1), recorded[f"{tag}_timestep"]
    )
    latents = ours(recorded[f"{tag}_latents"])
    (value, direction), gradient = score(
        latents, ScoreNetworks(real=dit_params, fake=fake_params), draw
    )
    agree(value, recorded[f"{tag}_loss"])
    agree(theirs(gradient), recorded[f"{tag}_grad_latents"])
    agree(jnp.abs(direction).mean(), recorded[f"{tag}_gradnorm"])


@pytest.fixture(scope="module")
def criticise(dit_config, conditioning):
    def loss(params, latents, draw):
        return critic_loss(params, dit_config, conditioning, latents, draw, dmd=DMD)[0]

    return jax.jit(jax.value_and_grad(loss))


@pytest.mark.parametrize("run", SCORED)
def test_critic(recorded, criticise, fake_params, agree, agree_gradients, run):
    draw = flow_draw(recorded, f"critic{run}", TIMESTEPS)
    value, gradients = criticise(fake_params, ours(recorded[f"dmd{run}_latents"]), draw)
    agree(value, recorded[f"critic{run}_loss"])
    agree_gradients(f"critic{run}", gradients)
