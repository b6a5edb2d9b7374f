"""Evaluation inputs, and the ground-truth films that bound every score from above.

A `VideoGenerator` is bound to an `EvalSetup` and takes stories; it yields one film a story, in
order, each as soon as it is complete. Reference shots are ground truth that stands in for the first
shots of a film; they reach the model through the autoencoder, as its own finished shots would.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.models.configs import VAEConfig
from shotstream_jax.models.vae import decode, encode, frames_to_pixels
from shotstream_jax.rollout.conditioning import FIRST_SHOT
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.programs import to_video
from shotstream_jax.rollout.stream import plan_for
from shotstream_jax.story import ContextCaptions, ContextPolicy, Defaults, ShotPlan
from shotstream_jax.storyworld.captions import to_story
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.render import VIDEO_FRAMES, render_shot
from shotstream_jax.storyworld.spec import MAX_SHOTS, Split, StorySpec, sample_story
from shotstream_jax.typing import HostFrames, Latents, Params, Pixels, UInt8

ShotVideos = tuple[HostFrames, ...]
"""The shots of a film."""

FEWEST_SHOTS = 2
"""A film of one shot carries nothing over."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalStory:
    """A story of an evaluation, with its ground truth.

    Attributes:
      spec: what the film should show.
      seed: of the film's noise.
    """

    spec: StorySpec
    seed: int


VideoGenerator = Callable[[Sequence[EvalStory]], Iterator[ShotVideos]]
"""Yields one film a story, in the order of the stories."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalSetup:
    """What all films of one pass of an evaluation share.

    Attributes:
      picture: size of a video frame.
      video_frames: length of every shot.
      reference_shots: first shots of a film that are taken from the ground truth.
      context: whether a shot sees frames of the shots before it.
      policy: which frames of them it sees.
      captions: whose caption those frames read.
    """

    picture: Picture
    video_frames: int = VIDEO_FRAMES
    reference_shots: int = 0
    context: bool = True
    policy: ContextPolicy = "anchor"
    captions: ContextCaptions = "own"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.picture.height, self.picture.width

    def true_shot(self, spec: StorySpec, shot: int) -> HostFrames:
        """The ground truth of a shot."""
        return render_shot(spec, shot, video_frames=self.video_frames, picture=self.picture)


def draw_stories(
    stories: int, shots: Sequence[int], *, seed: int = 0, split: Split = "test"
) -> tuple[EvalStory, ...]:
    """Draw stories whose numbers of shots take turns, and order them by that number.

    The order lets generators film alike stories together; a story does not depend on it.

    Raises:
      ValueError: no stories, a number of shots that no story has, or a seed below 0.
    """
    if stories < 1:
        raise ValueError(f"{stories} stories leave nothing to measure; ask for 1 or more.")
    if not shots or not all(FEWEST_SHOTS <= count <= MAX_SHOTS for count in shots):
        listed = " ".join(map(str, shots)) or "none"
        raise ValueError(
            f"Stories of {listed} shots: each needs {FEWEST_SHOTS} to {MAX_SHOTS} of them."
        )
    if seed < 0:
        raise ValueError(f"A seed of {seed} is below 0; choose 0 or more.")
    # Each story is drawn by its own number: asking for more stories leaves the first ones as they
    # are.
    counts = itertools.islice(itertools.cycle(shots), stories)
    drawn = [
        EvalStory(
            spec=sample_story(seed, count, split, index=index),
            seed=int(np.random.default_rng([seed, index]).integers(2**31)),
        )
        for index, count in enumerate(counts)
    ]
    return tuple(sorted(drawn, key=lambda story: len(story.spec.shots)))


def plan_film(networks: Networks, setup: EvalSetup, story: EvalStory) -> tuple[ShotPlan, ...]:
    """Plans of all shots of a film, with the context that the setup allows.

    Without context each is the plan of a first shot.

    Raises:
      ValueError: a size or a length that these networks cannot film.
    """
    # For its refusal: a size that does not divide is said before any story is planned.
    networks.config.latent_grid(setup.size)
    defaults = Defaults(
        seed=story.seed, size=setup.size, chunks=count_chunks(networks, setup.video_frames)
    )
    resolved = to_story(story.spec, "StoryWorld", defaults)
    plans = (
        plan_for(networks, resolved, shot, policy=setup.policy)
        for shot in range(len(resolved.shots))
    )
    return tuple(_as_seen(setup, plan) for plan in plans)


def _as_seen(setup: EvalSetup, plan: ShotPlan) -> ShotPlan:
    if not setup.context:
        # The number goes with the context: the network has seen zeros with no other.
        return dataclasses.replace(plan, context=(), rope_shot=FIRST_SHOT)
    if setup.captions == "target":
        context = (dataclasses.replace(frame, caption=plan.caption) for frame in plan.context)
        return dataclasses.replace(plan, context=tuple(context))
    return plan


def count_chunks(networks: Networks, video_frames: int) -> int:
    """Chunks of a shot of so many video frames.

    Raises:
      ValueError: frames that are not whole chunks.
    """
    config, chunk = networks.config.vae, networks.config.rollout.window.chunk
    # Rounded and compared below, so that a refusal can name the nearest length that will do.
    latent_frames = 1 + (video_frames - 1) / config.temporal_stride
    chunks = max(1, round(latent_frames / chunk))
    if config.video_frames(chunks * chunk) != video_frames:
        raise ValueError(
            f"Shots of {video_frames} video frames are not whole chunks of {chunk} latent frames; "
            f"ask for {config.video_frames(chunks * chunk)}."
        )
    return chunks


def true_films(setup: EvalSetup) -> VideoGenerator:
    """The ground truth."""

    def make(stories: Sequence[EvalStory]) -> Iterator[ShotVideos]:
        for story in stories:
            shots = range(len(story.spec.shots))
            yield tuple(setup.true_shot(story.spec, shot) for shot in shots)

    return make


def reconstructed_films(networks: Networks, setup: EvalSetup) -> VideoGenerator:
    """Ground truth that went through the autoencoder: no model that decodes with it does better."""

    def make(stories: Sequence[EvalStory]) -> Iterator[ShotVideos]:
        for film in true_films(setup)(stories):
            # All shots of a film as one batch: they have one length, and no shot's past reaches
            # another.
            pixels = decode_shots(networks, encode_shots(networks, np.stack(film)))
            yield tuple(np.asarray(to_video(pixels)))

    return make


def encode_shots(
    networks: Networks, frames: UInt8[np.ndarray, "batch video_frame height width 3"]
) -> Latents:
    """Latents of whole shots."""
    # As one clip, as training encodes its targets; frames that become context are encoded one by
    # one.
    return _encode(networks.vae, networks.config.vae, frames_to_pixels(jnp.asarray(frames)))


def decode_shots(networks: Networks, latents: Latents) -> Pixels:
    """Pixels of whole shots, what lies outside [-1, 1] cut off."""
    return _decode(networks.vae, networks.config.vae, networks.decode_dtype, latents)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _decode(params: Params, config: VAEConfig, dtype: Any, latents: Latents) -> Pixels:
    return jnp.clip(decode(params, config, latents, dtype=dtype), -1, 1)


_encode = jax.jit(encode, static_argnames="config")
