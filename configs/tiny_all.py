"""The whole miniature, from nothing: every stage of the method, one after the other.

    shotstream train configs/tiny_all.py --resume

The same command goes on where a stopped run was left, whichever stage that was.
"""

import pathlib

from shotstream_jax.train.engine.pipeline import Pipeline

config = Pipeline(
    stages=(
        pathlib.Path("tiny_vae.py"),
        pathlib.Path("tiny_vae_motion.py"),
        pathlib.Path("tiny_latents.py"),
        pathlib.Path("tiny_base.py"),
        pathlib.Path("tiny_teacher.py"),
        pathlib.Path("tiny_teacher_more.py"),
        pathlib.Path("tiny_ode_pairs.py"),
        pathlib.Path("tiny_causal_init.py"),
        pathlib.Path("tiny_dmd_intra.py"),
        pathlib.Path("tiny_dmd_inter.py"),
    )
)
