"""The generator of each role's films."""

import functools
from collections.abc import Callable
from typing import Literal

from shotstream_jax.evaluation.films import (
    EvalSetup,
    VideoGenerator,
    reconstructed_films,
    true_films,
)
from shotstream_jax.evaluation.student_films import student_films
from shotstream_jax.evaluation.teacher_films import BATCH, teacher_films
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.teacher import SampleConfig

TransformerRole = Literal["student", "teacher"]
"""How a transformer films: chunk by chunk in few steps, or whole shots in many."""

Role = TransformerRole | Literal["autoencoder", "true"]
"""A transformer; or films of no transformer: ground truth, and its reconstructions."""

BindGenerator = Callable[[EvalSetup], VideoGenerator]


def bind_generator(
    role: Role,
    networks: Networks,
    *,
    sample: SampleConfig | None = None,
    negative: str | None = None,
    batch: int = BATCH,
) -> BindGenerator:
    """The films of a role, for any setup.

    Args:
      role: who films.
      networks: what is filmed with.
      sample: the teacher's sampling; by default that of `SampleConfig` at the networks' shift.
      negative: the teacher's negative prompt.
      batch: stories that the teacher films together.
    """
    match role:
        case "student":
            return functools.partial(student_films, networks)
        case "autoencoder":
            return functools.partial(reconstructed_films, networks)
        case "true":
            return true_films
        case "teacher":
            # The schedule that the weights were trained on, not the released 8: the miniature has
            # its own.
            sample = sample or SampleConfig(shift=networks.config.rollout.shift)
            return functools.partial(
                teacher_films, networks, sample=sample, negative=negative, batch=batch
            )
