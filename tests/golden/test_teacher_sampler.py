import re

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.rollout.conditioning import Conditioning
from shotstream_jax.rollout.teacher import SampleConfig, sample_shot
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
    context = ours(recorded["context_latents"])
    # The reference has one number a frame for both the rotation and the caption.
    flags = jnp.asarray(recorded["flags"])
    context_flags, flag = flags[: context.shape[1]], flags[-1]
    conditioning = Conditioning(
        context=context,
        context_shots=context_flags[None],
        shot=flag[None],
        text=jnp.asarray(recorded["ctx"])[jnp.append(context_flags, flag)][None],
    )
    negative = jnp.asarray(recorded["neg"])[None]

    @jax.jit
    def sample(params, noise):
        return sample_shot(params, dit_config, conditioning, negative, noise, sample=config)

    sampled = sample(dit_params, ours(recorded["noise"]))
    for slot, step in enumerate(keep):
        agree(sampled.kept[slot], np.moveaxis(recorded[f"input{step}"], -3, -1), film_tolerance)
    agree(sampled.x0, np.moveaxis(recorded["x0"], -3, -1), film_tolerance)
