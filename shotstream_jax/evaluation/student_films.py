"""Films of the causal student, by the camera that `generate` films with: the same films."""

from collections.abc import Iterator, Sequence

import numpy as np

from shotstream_jax.evaluation.films import (
    EvalSetup,
    EvalStory,
    ShotVideos,
    VideoGenerator,
    count_chunks,
    encode_shots,
    plan_film,
)
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.stream import Camera, context_sources


def student_films(networks: Networks, setup: EvalSetup) -> VideoGenerator:
    """Film each story with a camera of its own.

    Raises:
      ValueError: a size or a length that these networks cannot film.
    """
    networks.config.latent_grid(setup.size)
    count_chunks(networks, setup.video_frames)

    def make(stories: Sequence[EvalStory]) -> Iterator[ShotVideos]:
        return (_film(networks, setup, story) for story in stories)

    return make


def _film(networks: Networks, setup: EvalSetup, story: EvalStory) -> ShotVideos:
    plans, film = plan_film(networks, setup, story), []
    camera = Camera(networks, setup.size, wanted=context_sources(plans))
    for plan in plans:
        if plan.index >= setup.reference_shots:
            # All chunks are under way before the first is read.
            pieces = list(camera.film(plan))
            film.append(np.concatenate([piece.frames for piece in pieces]))
            continue
        film.append(setup.true_shot(story.spec, plan.index))
        if setup.context:
            # Through the camera, for what later shots see of it: frames decoded from its latents,
            # as of a shot that was filmed.
            for _ in camera.replay(plan, encode_shots(networks, film[-1][None])):
                pass
    return tuple(film)
