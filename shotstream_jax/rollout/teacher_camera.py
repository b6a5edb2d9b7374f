"""A camera of the bidirectional teacher: whole takes in many guided steps.

It sees of earlier shots what the student's camera sees: the same context frames, decoded and
encoded again, each with its own caption. A take is one piece of noise, not chunks of it; it is
decoded and handed on in chunks all the same.
"""

import functools
import zlib
from collections.abc import Collection, Iterator

import jax
import jax.numpy as jnp

from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.rollout.chunk import chunk_noise, slot_captions
from shotstream_jax.rollout.conditioning import Conditioning, NegativeText
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.stream import Camera, ContextFrameStore, FilmedChunk
from shotstream_jax.rollout.teacher import SampleConfig, sample_shot
from shotstream_jax.story import ShotPlan, TakeFrame
from shotstream_jax.typing import Latents, Params


class TeacherCamera:
    """Films takes one after the other, each sampled whole."""

    def __init__(
        self,
        networks: Networks,
        size: tuple[int, int],
        *,
        sample: SampleConfig,
        negative: str | None = None,
        wanted: Collection[TakeFrame] | None = None,
    ):
        """Allocate nothing yet.

        Args:
          networks: with the teacher's transformer.
          size: height and width of the film in pixels.
          sample: of every take.
          negative: prompt that guidance leads away from; without one, the zeros that stand for a
            dropped caption in training.
          wanted: video frames that later takes may name as context; by default every frame.

        Raises:
          ValueError: a size that does not divide into patches, or no steps.
        """
        if sample.steps < 1:
            raise ValueError(f"{sample.steps} steps make no film; sample in 1 or more.")
        self._networks, self._sample, self._prompt = networks, sample, negative
        self._camera = Camera(networks, size, wanted=wanted)
        dit = networks.config.dit
        # Zeros are what training puts in place of dropped captions, and need no text encoder. The
        # public sampler guides away from Wan's negative prompt: pass that for its films.
        self._negative = (
            jnp.zeros((1, 1, dit.text_tokens, dit.text_dim))
            if negative is None
            else networks.encode_text([negative])[None]
        )

    @property
    def store(self) -> ContextFrameStore:
        """Frames that later takes may see."""
        return self._camera.store

    @property
    def sampler(self) -> str:
        """Everything of the sampling that changes a film, in one word."""
        sample = self._sample
        words = ["teacher", sample.solver, str(sample.steps), f"{sample.guidance:g}"]
        words += ["history"] if sample.history_guidance else []
        if self._prompt is not None:
            # A checksum tells prompts apart: a prompt may be a page long, and this becomes part of
            # a digest.
            words.append(f"{zlib.crc32(self._prompt.encode()):08x}")
        return "-".join(words)

    def film(self, plan: ShotPlan) -> Iterator[FilmedChunk]:
        """Sample a take, then decode it chunk by chunk.

        Raises:
          ValueError: a shot that continues another one.
        """
        # Every frame of a take attends to every other one: there is no cache that a later part
        # could go on from.
        if plan.transition == "continue":
            raise ValueError(
                f"Shot {plan.shot_id} continues the shot before it, and the teacher samples whole "
                "shots; make it a cut, or film with the student."
            )
        latents = _sampled(
            self._networks.dit,
            self._networks.config.dit,
            self._conditioning(plan),
            self._negative,
            self._noise(plan),
            sample=self._sample,
            compute=self._networks.compute,
        )
        # By the student's camera, so that frames, and what later shots see of them, come about in
        # one way.
        yield from self._camera.replay(plan, latents)

    def replay(self, plan: ShotPlan, latents: Latents) -> Iterator[FilmedChunk]:
        """Take a shot that was filmed before as filmed."""
        return self._camera.replay(plan, latents)

    def _conditioning(self, plan: ShotPlan) -> Conditioning:
        engine, slots = self._camera.engine, self._camera.engine.context_slots
        channels = self._networks.config.dit.latent_channels
        context = [self.store.latent(frame.source) for frame in plan.context]
        # Zeros numbered 0 for a first shot, as dropout leaves a sample without its context.
        shots = [frame.rope_shot for frame in plan.context] or [0] * slots
        return Conditioning(
            context=jnp.concatenate(context, axis=1)
            if context
            else jnp.zeros((1, slots, *engine.grid, channels)),
            context_shots=jnp.asarray([shots], jnp.int32),
            shot=jnp.asarray([plan.rope_shot], jnp.int32),
            text=self._networks.encode_text(slot_captions(plan, slots))[None],
        )

    def _noise(self, plan: ShotPlan) -> Latents:
        """Noise of a whole take: one chunk of all its frames, one step."""
        config = self._networks.config
        frames = plan.chunks * config.rollout.window.chunk
        shape = (1, frames, *self._camera.engine.grid, config.dit.latent_channels)
        # Keyed as the student's, so that a film does not depend on the order in which shots are
        # sampled.
        return chunk_noise(plan.seed, plan.noise_shot, plan.take, 0, steps=1, shape=shape)[0]


@functools.partial(jax.jit, static_argnames=("config", "sample", "compute"))
def _sampled(
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
