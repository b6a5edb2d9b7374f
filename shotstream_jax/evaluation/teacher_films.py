"""Films of the bidirectional teacher: shot by shot, each sampled whole, many stories at once.

A shot sees frames of the shots before it as the student's does: decoded to pixels, and encoded
again one by one. All shots of all films of one length are one program.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.evaluation.films import (
    EvalSetup,
    EvalStory,
    ShotVideos,
    VideoGenerator,
    count_chunks,
    decode_shots,
    encode_shots,
    plan_film,
)
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.models.vae import encode_images
from shotstream_jax.rollout.chunk import chunk_noise, slot_captions
from shotstream_jax.rollout.conditioning import Conditioning, NegativeText
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.programs import to_video
from shotstream_jax.rollout.teacher import SampleConfig, sample_shot
from shotstream_jax.story import ShotPlan
from shotstream_jax.typing import Latents, Params, Pixels

BATCH = 8
"""Stories that are filmed together."""


def teacher_films(
    networks: Networks,
    setup: EvalSetup,
    *,
    sample: SampleConfig,
    negative: str | None = None,
    batch: int = BATCH,
) -> VideoGenerator:
    """Film stories together, neighbours with as many shots as one another.

    Args:
      networks: with the teacher's transformer.
      setup: what all films have in common.
      sample: of every shot.
      negative: prompt that guidance leads away from; without one, the zeros that stand for a
        dropped caption in training.
      batch: most stories that are filmed together.

    Raises:
      ValueError: a size or a length that these networks cannot film, no steps, or an empty batch.
    """
    networks.config.latent_grid(setup.size)
    count_chunks(networks, setup.video_frames)
    for name, count in (("steps", sample.steps), ("stories at once", batch)):
        if count < 1:
            raise ValueError(f"{count} {name} make no film; ask for 1 or more.")
    if negative is None:
        unprompted = jnp.zeros((networks.config.dit.text_tokens, networks.config.dit.text_dim))
    else:
        unprompted = networks.encode_text([negative])[0]
    film = functools.partial(_film_together, networks, setup, sample, unprompted)

    def make(stories: Sequence[EvalStory]) -> Iterator[ShotVideos]:
        # `draw_stories` orders by number of shots, which groupby needs: it joins neighbours only.
        for _, group in itertools.groupby(stories, key=lambda story: len(story.spec.shots)):
            for together, wanted in _batches(list(group), batch):
                yield from film(together)[:wanted]

    return make


def _batches(stories: list[EvalStory], most: int) -> Iterator[tuple[list[EvalStory], int]]:
    """Batches of one size, as few and as small as can be; and how many of each are not filling."""
    # Full batches and a rest would be two shapes, and a second compilation of the whole sampler.
    count = -(-len(stories) // most)
    size = -(-len(stories) // count)
    for start in range(0, len(stories), size):
        batch = stories[start : start + size]
        yield batch + batch[-1:] * (size - len(batch)), len(batch)


def _film_together(
    networks: Networks,
    setup: EvalSetup,
    sample: SampleConfig,
    unprompted: jax.Array,
    stories: Sequence[EvalStory],
) -> list[ShotVideos]:
    plans = [plan_film(networks, setup, story) for story in stories]
    negative = jnp.broadcast_to(unprompted, (len(stories), 1, *unprompted.shape))
    seen: list[Pixels] = []
    shown: list[np.ndarray] = []
    for shot, together in enumerate(zip(*plans, strict=True)):
        if shot < setup.reference_shots:
            frames = np.stack([setup.true_shot(story.spec, shot) for story in stories])
            # Later shots see it through the autoencoder, as they see shots that were filmed; it is
            # shown as it is.
            seen.append(decode_shots(networks, encode_shots(networks, frames)))
            shown.append(frames)
            continue
        latents = _sample(
            networks.dit,
            networks.config.dit,
            _conditioning(networks, setup, together, seen),
            negative,
            _noise(networks, setup, together),
            sample=sample,
            compute=networks.compute,
        )
        seen.append(decode_shots(networks, latents))
        shown.append(np.asarray(to_video(seen[-1])))
    return [tuple(film) for film in zip(*shown, strict=True)]


@functools.partial(jax.jit, static_argnames=("config", "sample", "compute"))
def _sample(
    params: Params,
    config: DiTConfig,
    conditioning: Conditioning,
    negative: NegativeText,
    noise: Latents,
    *,
    sample: SampleConfig,
    compute: Compute,
) -> Latents:
    return sample_shot(
        params, config, conditioning, negative, noise, sample=sample, compute=compute
    ).x0


def _conditioning(
    networks: Networks, setup: EvalSetup, plans: Sequence[ShotPlan], seen: Sequence[Pixels]
) -> Conditioning:
    """What a shot of each story is made from; all are the same shot of films of one length."""
    # The context depends on the number of shots and their lengths alone, which all films here
    # share.
    frames, budget = plans[0].context, networks.config.rollout.window.context
    if frames:
        # A context frame's rotary shot number is its shot's place in the film.
        images = jnp.stack([seen[f.rope_shot][:, f.source.frame] for f in frames], axis=1)
        context = _encode_images(networks.vae, networks.config.vae, images)
    else:
        # Zeros, numbered 0 below: a first shot as dropout of the context has taught it.
        context = jnp.zeros((len(plans), budget, *_place_shape(networks, setup)))
    context_shots = jnp.asarray([frame.rope_shot for frame in frames] or [0] * budget)
    return Conditioning(
        context=context,
        context_shots=jnp.broadcast_to(context_shots, (len(plans), budget)),
        shot=jnp.full(len(plans), plans[0].rope_shot),
        text=jnp.stack([networks.encode_text(slot_captions(plan, budget)) for plan in plans]),
    )


def _noise(networks: Networks, setup: EvalSetup, plans: Sequence[ShotPlan]) -> Latents:
    """Noise keyed by each story alone, not by its batch: the whole shot is one chunk, one step."""
    frames = networks.config.vae.latent_frames(setup.video_frames)
    shape = (1, frames, *_place_shape(networks, setup))
    # Take 0, chunk 0: the key that `generate --role teacher` uses, so that both start alike.
    draws = [chunk_noise(p.seed, p.noise_shot, 0, 0, steps=1, shape=shape)[0] for p in plans]
    return jnp.concatenate(draws)


def _place_shape(networks: Networks, setup: EvalSetup) -> tuple[int, int, int]:
    """Rows, columns and channels of a latent frame."""
    return *networks.config.latent_grid(setup.size), networks.config.dit.latent_channels


_encode_images = jax.jit(encode_images, static_argnames="config")
