"""Films of the causal student, by the camera that `generate` films with: the same films."""

from collections.abc import Iterator, Sequence

import numpy as np

from shotstream_jax.evaluation.films import (
    Film,
    MakeFilms,
    Script,
    Shoot,
    count_chunks,
    encode_shots,
    plan_film,
)
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.stream import Camera, context_sources


def student_films(networks: Networks, shoot: Shoot) -> MakeFilms:
    """Film each script with a camera of its own.

    Raises:
      ValueError: a size or a length that these networks cannot film.
    """
    networks.config.latent_grid(shoot.size)
    count_chunks(networks, shoot.video_frames)

    def make(scripts: Sequence[Script]) -> Iterator[Film]:
        return (_film(networks, shoot, script) for script in scripts)

    return make


def _film(networks: Networks, shoot: Shoot, script: Script) -> Film:
    plans, film = plan_film(networks, shoot, script), []
    camera = Camera(networks, shoot.size, wanted=context_sources(plans))
    for plan in plans:
        if plan.index >= shoot.given:
            # All chunks are under way before the first is read.
            pieces = list(camera.film(plan))
            film.append(np.concatenate([piece.frames for piece in pieces]))
            continue
        film.append(shoot.true_shot(script.spec, plan.index))
        if shoot.context:
            for _ in camera.replay(plan, encode_shots(networks, film[-1][None])):
                pass
    return tuple(film)
