"""What films under test are made of, whoever makes them; and the true ones, as ceilings.

A maker is bound to a `Shoot` and takes scripts; it gives one film a script, in order, as they come.
Shots that are given are true ones. Whoever films after them sees of them what it would see of
perfect shots of its own: frames that have been through the autoencoder.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.models.vae import decode, encode
from shotstream_jax.models.vae_config import VAEConfig
from shotstream_jax.rollout.conditioning import FIRST_SHOT
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.programs import to_video
from shotstream_jax.rollout.stream import plan_for
from shotstream_jax.story import ContextCaptions, ContextPolicy, Defaults, ShotPlan
from shotstream_jax.storyworld.captions import to_story
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.render import VIDEO_FRAMES, render_shot
from shotstream_jax.storyworld.spec import MAX_SHOTS, Split, StorySpec, sample_story
from shotstream_jax.train.objectives.vae import to_pixels
from shotstream_jax.typing import HostFrames, Latents, Params, Pixels, UInt8

Film = tuple[HostFrames, ...]
"""The shots of a film."""

FEWEST_SHOTS = 2
"""A film of one shot carries nothing over."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Script:
    """A story to film.

    Attributes:
      spec: what is to be seen.
      seed: where the randomness of the film starts.
    """

    spec: StorySpec
    seed: int


MakeFilms = Callable[[Sequence[Script]], Iterator[Film]]
"""Films of scripts, in their order, each as soon as it is there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shoot:
    """What all films that are made together have in common.

    Attributes:
      picture: size of a video frame.
      video_frames: length of every shot.
      given: first shots that are true ones.
      context: whether a shot is shown anything of the shots before it.
      policy: which frames of them it is shown.
      captions: whose caption those frames read.
    """

    picture: Picture
    video_frames: int = VIDEO_FRAMES
    given: int = 0
    context: bool = True
    policy: ContextPolicy = "anchor"
    captions: ContextCaptions = "own"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.picture.height, self.picture.width

    def true_shot(self, spec: StorySpec, shot: int) -> HostFrames:
        """A shot as it should be."""
        return render_shot(spec, shot, video_frames=self.video_frames, picture=self.picture)


def draw_scripts(
    stories: int, shots: Sequence[int], *, seed: int = 0, split: Split = "test"
) -> tuple[Script, ...]:
    """Draw stories whose numbers of shots take turns, and order them by that number.

    The order lets makers film alike stories together; a story does not depend on it.

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
    counts = itertools.islice(itertools.cycle(shots), stories)
    scripts = [
        Script(
            spec=sample_story(seed, count, split, index=index),
            seed=int(np.random.default_rng([seed, index]).integers(2**31)),
        )
        for index, count in enumerate(counts)
    ]
    return tuple(sorted(scripts, key=lambda script: len(script.spec.shots)))


def plan_film(networks: Networks, shoot: Shoot, script: Script) -> tuple[ShotPlan, ...]:
    """Plans of all shots of a film, seeing what the shoot lets them see.

    Without context each is the plan of a first shot.

    Raises:
      ValueError: a size or a length that these networks cannot film.
    """
    networks.config.latent_grid(shoot.size)
    defaults = Defaults(
        seed=script.seed, size=shoot.size, chunks=count_chunks(networks, shoot.video_frames)
    )
    story = to_story(script.spec, "StoryWorld", defaults)
    plans = (
        plan_for(networks, story, shot, policy=shoot.policy) for shot in range(len(story.shots))
    )
    return tuple(_as_seen(shoot, plan) for plan in plans)


def _as_seen(shoot: Shoot, plan: ShotPlan) -> ShotPlan:
    if not shoot.context:
        return dataclasses.replace(plan, context=(), rope_shot=FIRST_SHOT)
    if shoot.captions == "target":
        context = (dataclasses.replace(frame, caption=plan.caption) for frame in plan.context)
        return dataclasses.replace(plan, context=tuple(context))
    return plan


def slot_captions(plan: ShotPlan, slots: int) -> list[str]:
    """The caption of each context slot, and then the shot's own.

    Slots of a shot without context read its own caption, as the released weights learnt it.
    """
    own = plan.captions[plan.caption_index]
    return [*([plan.captions[ref.shot] for ref in plan.context] or [own] * slots), own]


def count_chunks(networks: Networks, video_frames: int) -> int:
    """Chunks of a shot of so many video frames.

    Raises:
      ValueError: frames that are not whole chunks.
    """
    config, chunk = networks.config.vae, networks.config.rollout.window.chunk
    latent_frames = 1 + (video_frames - 1) / config.temporal_stride
    chunks = max(1, round(latent_frames / chunk))
    if config.video_frames(chunks * chunk) != video_frames:
        raise ValueError(
            f"Shots of {video_frames} video frames are not whole chunks of {chunk} latent frames; "
            f"ask for {config.video_frames(chunks * chunk)}."
        )
    return chunks


def true_films(shoot: Shoot) -> MakeFilms:
    """Films as they should be."""

    def make(scripts: Sequence[Script]) -> Iterator[Film]:
        for script in scripts:
            shots = range(len(script.spec.shots))
            yield tuple(shoot.true_shot(script.spec, shot) for shot in shots)

    return make


def reconstructed_films(networks: Networks, shoot: Shoot) -> MakeFilms:
    """True films that went through the autoencoder: the best that any film can be."""

    def make(scripts: Sequence[Script]) -> Iterator[Film]:
        for film in true_films(shoot)(scripts):
            pixels = decode_shots(networks, encode_shots(networks, np.stack(film)))
            yield tuple(np.asarray(to_video(pixels)))

    return make


def encode_shots(
    networks: Networks, frames: UInt8[np.ndarray, "batch video_frame height width 3"]
) -> Latents:
    """Latents of whole shots."""
    return _encode(networks.vae, networks.config.vae, to_pixels(jnp.asarray(frames)))


def decode_shots(networks: Networks, latents: Latents) -> Pixels:
    """Pixels of whole shots, what lies outside [-1, 1] cut off."""
    return _decode(networks.vae, networks.config.vae, networks.decode_dtype, latents)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _decode(params: Params, config: VAEConfig, dtype: Any, latents: Latents) -> Pixels:
    return jnp.clip(decode(params, config, latents, dtype=dtype), -1, 1)


_encode = jax.jit(encode, static_argnames="config")
