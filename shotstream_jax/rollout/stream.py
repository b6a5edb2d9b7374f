"""Filming as it happens: a Python generator over jitted chunks, frames as soon as they exist.

A `Camera` holds what one film in the making needs and nothing else: the key/value cache and the
decoder's cache of the shot it is on, and the few frames of earlier shots that later ones may still
ask for. Its memory does not grow with the film.

    for piece in stream_story(networks, story):
        show(piece.frames)
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from shotstream_jax.models.cache import ShotCache, TextKeys
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.vae_decoder import DecoderCache
from shotstream_jax.rollout import programs
from shotstream_jax.rollout.chunk import Context
from shotstream_jax.rollout.context_store import Memory
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.noise import chunk_noise
from shotstream_jax.rollout.profiling import Run, simply_run
from shotstream_jax.story import ContextPolicy, ShotPlan, Story, plan_shot
from shotstream_jax.typing import Array, Float, Latents, Params, Pixels, VideoFrames

Noise = Callable[[ShotPlan, int], Float[Array, "step batch frame row col chan"]]
"""The noise of chunk number `int` of a shot, in place of what its seed gives."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmedChunk:
    """A chunk of a shot, as it leaves the camera.

    Attributes:
      plan: of the shot.
      chunk: number within the shot.
      latents: its latent frames.
      frames: its video frames; computed in the background until somebody reads them.
    """

    plan: ShotPlan
    chunk: int
    latents: Latents
    frames: VideoFrames

    @property
    def ends_shot(self) -> bool:
        """Whether the shot is complete with this chunk."""
        return self.chunk == self.plan.chunks - 1


class Camera:
    """Films the shots of one story, one after the other."""

    def __init__(self, networks: Networks, size: tuple[int, int], *, run: Run = simply_run):
        """Allocate nothing yet.

        Args:
          networks: what to film with.
          size: height and width of the film in pixels.
          run: does each part of the work.

        Raises:
          ValueError: a size that does not divide into patches.
        """
        self.networks = networks
        self.size = size
        self.grid = networks.config.latent_grid(size)
        self._run = run
        self._cache: ShotCache | None = None
        self._decoder: DecoderCache | None = None
        self._chunks = 0
        self._unprepared: tuple[Context, TextKeys] | None = None
        self._unwritten: list[tuple[int, Latents]] = []
        self._rope_shot = 0
        self._memory = Memory(networks, run)
        self._text: dict[str, TextKeys] = {}

    def film(
        self, plan: ShotPlan, *, take: int = 0, noise: Noise | None = None
    ) -> Iterator[FilmedChunk]:
        """Film a shot chunk by chunk; each chunk's frames are under way when it is yielded.

        Raises:
          ValueError: a shot longer than positions reach, or one that continues nothing.
        """
        noise = noise or functools.partial(self._seeded_noise, take=take)
        self._start(plan)
        for chunk in range(plan.chunks):
            latents = self._denoise(self._run("noise", noise, plan, chunk))
            yield self._show(plan, chunk, latents)
        self._memory.forget()

    def remember(self, plan: ShotPlan, latents: Latents) -> Iterator[VideoFrames]:
        """Take a shot that was filmed before as filmed; yields its video frames, chunk by chunk.

        Filming afterwards goes on as if this camera had filmed it.
        """
        self._start(plan)
        for chunk, part in enumerate(jnp.split(latents, plan.chunks, axis=1)):
            self._unwritten.append((self._chunks, part))
            yield self._show(plan, chunk, part).frames
        self._memory.forget()

    def _start(self, plan: ShotPlan) -> None:
        """Point the camera: a context pass after a cut, a new caption when it goes on."""
        rollout = self.networks.config.rollout
        first = self._chunks if plan.transition == "continue" else 0
        if first + plan.chunks > rollout.max_chunks:
            raise ValueError(
                f"Shot {plan.index} would end {first + plan.chunks} chunks after its cut, of at "
                f"most {rollout.max_chunks}; cut sooner."
            )
        text = self._text_keys(plan.captions[plan.caption_index])
        if plan.transition == "continue":
            # What was filmed to the old caption is remembered under the old caption.
            cache = self._commit()
            # A copy: the cache is donated with all it holds, the caption's keys are used again.
            self._cache = dataclasses.replace(cache, text=jax.tree.map(jnp.copy, text))
        else:
            self._chunks, self._unwritten, self._decoder = 0, [], None
            self._rope_shot = plan.rope_shot
            self._unprepared = self._context(plan), text
            self._cache = self._blank_cache(text)
        self._memory.begin(plan)

    def _denoise(self, noise: Array) -> Latents:
        """Film the next chunk; if it is to have a clean pass, that is still to come."""
        how = {"rollout": self.networks.config.rollout, **self._how}
        if "no-clean-pass" in self.networks.approximate:
            where = self._commit(), self._chunks, self._rope_shot
            latents, self._cache = self._run(
                "denoise", programs.denoise_and_keep, *self._dit, *where, noise, **how
            )
            return latents
        if self.networks.compute.merged and (self._unprepared or len(self._unwritten) == 1):
            latents = self._denoise_merged(noise, how)
        else:
            where = self._commit(), self._chunks, self._rope_shot
            latents = self._run("denoise", programs.denoise, *self._dit, *where, noise, **how)
        self._unwritten.append((self._chunks, latents))
        return latents

    def _denoise_merged(self, noise: Array, how: dict[str, Any]) -> Latents:
        """What the cache still lacks, in the pass of the first step."""
        cache, self._cache = self._cache, None
        if self._unprepared:
            part, program = "context pass and denoise", programs.denoise_first
            inputs = cache, *self._unprepared, self._rope_shot, noise
        else:
            part, program = "clean pass and denoise", programs.denoise_next
            ((_, finished),) = self._unwritten
            inputs = cache, self._chunks, self._rope_shot, finished, noise
        latents, self._cache = self._run(part, program, *self._dit, *inputs, **how)
        self._unprepared, self._unwritten = None, []
        return latents

    def _commit(self) -> ShotCache:
        """The cache with all that it should hold; only what is filmed next needs it."""
        cache, self._cache = self._cache, None
        if cache is None:
            raise ValueError("There is no shot that could be continued; begin with a cut.")
        if self._unprepared:
            inputs = *self._dit, cache, *self._unprepared
            cache = self._run("context pass", programs.prepare, *inputs, **self._how)
            self._unprepared = None
        for chunk, latents in self._unwritten:
            inputs = *self._dit, cache, chunk, self._rope_shot, latents
            cache = self._run("clean pass", programs.commit, *inputs, **self._how)
        self._cache, self._unwritten = cache, []
        return cache

    def _show(self, plan: ShotPlan, chunk: int, latents: Latents) -> FilmedChunk:
        self._chunks += 1
        pixels = self._decode(latents)
        self._memory.watch(plan, chunk, latents, pixels)
        frames = self._run("to video", programs.to_video, pixels)[0]
        return FilmedChunk(plan=plan, chunk=chunk, latents=latents, frames=frames)

    def _decode(self, latents: Latents) -> Pixels:
        """One latent frame at a time: the first of a cut has a program of its own."""
        networks, parts = self.networks, []
        for frame in jnp.split(networks.to_vae(latents), latents.shape[1], axis=1):
            arguments = networks.vae, networks.config.vae, networks.decode_dtype, frame
            if self._decoder is None:
                pixels, self._decoder = self._run("decode", programs.decode_first, *arguments)
            else:
                cache, self._decoder = self._decoder, None
                pixels, self._decoder = self._run("decode", programs.decode_next, *arguments, cache)
            parts.append(pixels)
        return jnp.concatenate(parts, axis=1)

    def _context(self, plan: ShotPlan) -> Context:
        own = plan.captions[plan.caption_index]
        if not plan.context:
            shape = (1, self._budget, *self.grid, self.networks.config.dit.latent_channels)
            return Context(
                latents=jnp.zeros(shape),
                shots=jnp.zeros((1, self._budget), jnp.int32),
                text=_stack_captions([self._text_keys(own)] * self._budget),
            )
        captions = [plan.captions[ref.shot] for ref in plan.context]
        context = Context(
            latents=jnp.concatenate([self._memory.latent(ref) for ref in plan.context], axis=1),
            shots=jnp.asarray([[ref.shot for ref in plan.context]], jnp.int32),
            text=_stack_captions([self._text_keys(caption) for caption in captions]),
        )
        in_use = {own, *captions}
        self._text = {c: keys for c, keys in self._text.items() if c in in_use}
        return context

    def _text_keys(self, caption: str) -> TextKeys:
        if caption not in self._text:
            text = self._run("text", self.networks.encode_text, [caption])[None]
            inputs = *self._dit, text
            keys = self._run("caption keys", programs.encode_captions, *inputs, **self._how)
            self._text[caption] = keys
        return self._text[caption]

    def _blank_cache(self, text: TextKeys) -> ShotCache:
        """The cache of the shot before, to be written over, or a first one."""
        cache, self._cache = self._cache, None
        if cache is not None:
            return cache
        networks = self.networks
        return programs.init_cache(
            networks.config.dit,
            networks.config.rollout.window,
            text,
            networks.config.frame_tokens(self.size),
            networks.compute.dtype,
            networks.mesh,
            networks.approximate,
        )

    def _seeded_noise(self, plan: ShotPlan, chunk: int, *, take: int) -> Array:
        rollout = self.networks.config.rollout
        channels = self.networks.config.dit.latent_channels
        shape = (1, rollout.window.chunk, *self.grid, channels)
        return chunk_noise(
            plan.seed, plan.index, take, chunk, steps=len(rollout.steps), shape=shape
        )

    @property
    def _dit(self) -> tuple[Params, DiTConfig]:
        return self.networks.dit, self.networks.config.dit

    @property
    def _how(self) -> dict[str, Compute]:
        return {"compute": self.networks.compute}

    @property
    def _budget(self) -> int:
        return self.networks.config.rollout.window.context


def stream_story(
    networks: Networks, story: Story, *, noise: Noise | None = None
) -> Iterator[FilmedChunk]:
    """Film a story: chunks in order, each with its frames, the first long before a shot is done.

    Raises:
      ValueError: a size that does not divide into patches, or a shot longer than positions reach.
    """
    camera = Camera(networks, story.defaults.size)
    for index in range(len(story.shots)):
        yield from camera.film(plan_for(networks, story, index), noise=noise)


def one_ahead(pieces: Iterator[FilmedChunk]) -> Iterator[FilmedChunk]:
    """Ask for the next chunk before the last one is read: the device never waits for its reader."""
    waiting = next(pieces, None)
    while waiting is not None:
        following = next(pieces, None)
        yield waiting
        waiting = following


def plan_for(
    networks: Networks, story: Story, index: int, *, policy: ContextPolicy = "anchor"
) -> ShotPlan:
    """The plan of one shot of a story for the windows and strides of these networks."""
    window = networks.config.rollout.window
    return plan_shot(
        story,
        index,
        chunk_frames=window.chunk,
        temporal_stride=networks.config.vae.temporal_stride,
        budget=window.context,
        policy=policy,
    )


def _stack_captions(captions: Sequence[TextKeys]) -> TextKeys:
    return jax.tree.map(lambda *keys: jnp.concatenate(keys, axis=2), *captions)
