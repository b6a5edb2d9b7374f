import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.models.dit import encode_captions
from shotstream_jax.rollout.teacher import SampleConfig, Scene, guided_velocity, sample_euler
from shotstream_jax.schedule import TRAIN_STEPS, FlowSchedule


def ours(recorded):
    return jnp.asarray(np.moveaxis(recorded, -3, -1))


def test_guided_euler_steps(golden, dit_params, dit_config, agree, film_tolerance):
    recorded = golden.arrays("teacher_sampler_golden")
    schedule = FlowSchedule(shift=8.0)
    spaced = schedule.spaced(len(recorded["sigmas"]))
    np.testing.assert_array_equal(spaced, recorded["sigmas"])
    np.testing.assert_array_equal(spaced * np.float32(TRAIN_STEPS), recorded["timesteps"])

    keep = sorted(int(m[1]) for name in recorded if (m := re.match(r"input(\d+)$", name)))
    config = SampleConfig(steps=len(spaced), shift=8.0, guidance=6.0, keep=tuple(keep))
    text, negative = (
        encode_captions(dit_params, dit_config, jnp.asarray(recorded[name])[None])
        for name in ("ctx", "neg")
    )
    shots = jnp.asarray(recorded["flags"])[None]
    scene = Scene(
        context=ours(recorded["context_latents"]),
        shots=shots,
        captions=shots,
        text=text,
    )
    blank = dataclasses.replace(scene, text=negative)

    @jax.jit
    def sample(params, noise):
        velocity = guided_velocity(params, dit_config, scene, blank, config.guidance)
        return sample_euler(velocity, noise, config)

    sampled = sample(dit_params, ours(recorded["noise"]))
    for slot, step in enumerate(keep):
        agree(sampled.kept[slot], np.moveaxis(recorded[f"input{step}"], -3, -1), film_tolerance)
    agree(sampled.x0, np.moveaxis(recorded["x0"], -3, -1), film_tolerance)
