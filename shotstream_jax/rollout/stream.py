"""Filming as it happens: a Python generator over jitted chunks, frames as soon as they exist.

    for piece in stream_story(model, story):
        show(piece.frames)

A `Camera` is a short driver of an `Engine` and a store of context frames. It holds the state of one
take; what the store may forget is decided by the caller.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.rollout.chunk import ChunkNoise
from shotstream_jax.rollout.engine import Engine
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.programs import Run, no_profile
from shotstream_jax.rollout.shot_state import DecodedChunk, PartFrames, ShotState
from shotstream_jax.story import (
    ContextPolicy,
    ShotPlan,
    Story,
    TakeFrame,
    count_video_frames,
    plan_shot,
)
from shotstream_jax.typing import Array, Bool, Float, HostFrames, Latents

Noise = Callable[[ShotPlan, int], ChunkNoise]
"""The noise of chunk number `int` of a take, in place of what its plan's seed gives."""

Frame = Float[Array, "height width 3"]
"""One video frame in [-1, 1]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmedChunk:
    """A chunk of a take, as it leaves the camera.

    Attributes:
      plan: of the take.
      chunk: number within the take.
      latents: its latent frames.
      parts: its video frames, those of each latent frame apart; computed in the background.
      finite: of latents and of each part's pixels: whether none is NaN or infinite.
    """

    plan: ShotPlan
    chunk: int
    latents: Latents
    parts: tuple[PartFrames, ...]
    finite: tuple[Bool[Array, ""], ...]

    @property
    def frames(self) -> HostFrames:
        """All video frames, in host memory; waits for them."""
        return joined(self.parts)

    @property
    def ends_shot(self) -> bool:
        """Whether the take is complete with this chunk."""
        return self.chunk == self.plan.chunks - 1


class ContextFrameStore:
    """Frames of earlier shots that later ones may ask for, encoded when they are asked for.

    What is evicted, and when, is decided by the owner of the film (`keep`): an offline film keeps
    what its remaining plans name, a session may keep everything.
    """

    def __init__(self, encode: Callable[[Frame], Latents]):
        """Create an empty store; `encode` makes one latent frame of one video frame."""
        self._encode = encode
        # Pixels of every frame that may be asked for, latents only of those that were: a shot's
        # first frame is context of several later shots, and is encoded once.
        self._pixels: dict[TakeFrame, Frame] = {}
        self._latents: dict[TakeFrame, Latents] = {}

    def put(self, frame: TakeFrame, pixels: Frame, latent: Latents | None = None) -> None:
        """Add a frame, or replace it; `latent` stands in for what encoding it would give."""
        self._pixels[frame] = pixels
        # A frame that is filmed again must not keep the encoding of the old picture.
        self._latents.pop(frame, None)
        if latent is not None:
            self._latents[frame] = latent

    def latent(self, frame: TakeFrame) -> Latents:
        """A frame encoded by itself, once; later calls return the same array.

        Raises:
          ValueError: a frame that is not in the store.
        """
        if frame not in self._latents:
            if frame not in self._pixels:
                raise ValueError(
                    f"Frame {frame.frame} of shot {frame.shot_id} (take {frame.take}) is context "
                    "of the next shot and is not in the store; film or replay that take first."
                )
            self._latents[frame] = self._encode(self._pixels[frame])
        return self._latents[frame]

    def keep(self, frames: Collection[TakeFrame]) -> None:
        """Evict all other frames."""
        self._pixels = {frame: self._pixels[frame] for frame in self._pixels if frame in frames}
        self._latents = {frame: self._latents[frame] for frame in self._latents if frame in frames}

    def __len__(self) -> int:
        """Video frames in the store."""
        return len(self._pixels)


class Camera:
    """Films takes one after the other, each with frames of earlier ones as its context."""

    def __init__(
        self,
        networks: Networks,
        size: tuple[int, int],
        *,
        wanted: Collection[TakeFrame] | None = None,
        whole_takes: bool = False,
        run: Run = no_profile,
    ):
        """Allocate nothing yet.

        Args:
          networks: what to film with.
          size: height and width of the film in pixels.
          wanted: video frames that later takes may name as context; by default every frame.
          whole_takes: denoise every take in one program, before its first chunk is yielded.
          run: runs every program.

        Raises:
          ValueError: a size that does not divide into patches.
        """
        self.engine = Engine(networks, size, run=run)
        self.store = ContextFrameStore(self.engine.encode_frame)
        self._wanted, self._whole = wanted, whole_takes
        self._state: ShotState | None = None

    @property
    def sampler(self) -> str:
        """The model's own: few steps, chunk by chunk."""
        return ""

    def film(
        self,
        plan: ShotPlan,
        *,
        first_chunk: int = 0,
        noise: Noise | None = None,
    ) -> Iterator[FilmedChunk]:
        """Film a take; each chunk's frames are being computed when it is yielded.

        Args:
          plan: what to film.
          first_chunk: above 0, go on with the take that was filmed last, from this chunk.
          noise: of every chunk, in place of what the plan's seed gives.

        Raises:
          ValueError: a take that positions do not reach, or that continues nothing.
        """
        numbers = range(first_chunk, plan.chunks)
        state = self._going_on(plan) if first_chunk else self._begun(plan)
        # Drawn when its chunk is filmed: no noise of later chunks lies on the device meanwhile.
        draws = (
            self.engine.run("noise", noise or self.engine.noise, plan, chunk) for chunk in numbers
        )
        if self._whole:
            state, chunks = self.engine.whole_take(state, list(draws))
            for number, chunk in zip(numbers, chunks, strict=True):
                yield self._shown(plan, number, state, chunk)
            return
        for number, draw in zip(numbers, draws, strict=True):
            state, chunk = self.engine.next_chunk(state, draw)
            yield self._shown(plan, number, state, chunk)

    def replay(self, plan: ShotPlan, latents: Latents) -> Iterator[FilmedChunk]:
        """Take a shot that was filmed before as filmed, chunk by chunk.

        Filming afterwards goes on as if this camera had filmed it.
        """
        state = self._begun(plan)
        for number, part in enumerate(jnp.split(latents, plan.chunks, axis=1)):
            state, chunk = self.engine.replay(state, part)
            yield self._shown(plan, number, state, chunk)

    def _begun(self, plan: ShotPlan) -> ShotState:
        state = self._state
        if plan.transition == "continue":
            state = self._going_on(plan)
            return self.engine.continue_(state, plan.caption)
        self.engine.check_length(plan)
        context = [self.store.latent(frame.source) for frame in plan.context]
        # The take before is over: its cache is written over, so that there is only ever one.
        self._state = None
        return self.engine.cut(plan, context, blank=state.cache if state else None)

    def _going_on(self, plan: ShotPlan) -> ShotState:
        if self._state is None:
            raise ValueError(
                f"Shot {plan.shot_id} continues, and there is no shot before it that could be "
                "continued; begin with a cut."
            )
        self.engine.check_length(plan, self._state.chunks)
        return self._state

    def _shown(
        self, plan: ShotPlan, number: int, state: ShotState, chunk: DecodedChunk
    ) -> FilmedChunk:
        # Before the chunk is yielded: a caller that stops reading here can still continue the take.
        self._state = state
        self._store(plan, number, chunk)
        return FilmedChunk(
            plan=plan,
            chunk=number,
            latents=chunk.latents,
            parts=chunk.parts,
            finite=tuple(_is_finite(array) for array in (chunk.latents, *chunk.pixels)),
        )

    def _store(self, plan: ShotPlan, number: int, chunk: DecodedChunk) -> None:
        """Put aside those frames of a chunk that later takes may name."""
        networks = self.engine.networks
        made = number * networks.config.rollout.window.chunk
        stride = networks.config.vae.temporal_stride
        # A shot's first latent frame shows one video frame and later ones a stride each, unless the
        # shot continues another: the number of a chunk's first video frame has to be counted.
        first = count_video_frames(made, plan.transition, stride) if made else 0
        for place, pixels in enumerate(chunk.pixels):
            for offset in range(pixels.shape[1]):
                frame = TakeFrame(shot_id=plan.shot_id, take=plan.take, frame=first + offset)
                if self._wanted is None or frame in self._wanted:
                    # Approximate: the latent frame that shows it, as it was filmed.
                    latent = chunk.latents[:, place : place + 1]
                    decoded = networks.approximation.decoded_context
                    # Before rounding to 8 bits, as the public code encodes its context.
                    self.store.put(frame, pixels[0, offset], None if decoded else latent)
            first += pixels.shape[1]


@runtime_checkable
class OpenedModel(Protocol):
    """What `open_model` returns, as far as filming needs it; this package is below that one."""

    @property
    def networks(self) -> Networks:
        """What films."""
        ...


def networks_of(model: Networks | OpenedModel) -> Networks:
    """The networks of a model, or the networks themselves."""
    return model if isinstance(model, Networks) else model.networks


def stream_story(
    model: Networks | OpenedModel, story: Story, *, noise: Noise | None = None
) -> Iterator[FilmedChunk]:
    """Film a story: chunks in order, each with its frames, the first long before a shot is done.

    Memory does not grow with the story: frames that no later shot names are dropped.

    Args:
      model: what `open_model` returns, or its networks.
      story: what to film.
      noise: of every chunk, in place of what the seeds of the story give.

    Raises:
      ValueError: a size that does not divide into patches, or a shot longer than positions reach.
    """
    networks = networks_of(model)
    plans = plan_story(networks, story)
    camera = Camera(networks, story.defaults.size, wanted=context_sources(plans))
    for plan in plans:
        yield from camera.film(plan, noise=noise)
        # What no later shot names goes: a frame of 480 x 832 is 4.8 MB in float32, and a story may
        # have any number of shots.
        camera.store.keep(context_sources(plans[plan.index + 1 :]))


def one_ahead(pieces: Iterator[FilmedChunk]) -> Iterator[FilmedChunk]:
    """Ask for the next chunk before the last one is read: the device never waits for its reader."""
    waiting = next(pieces, None)
    while waiting is not None:
        # JAX returns before a program has run: asking for a chunk queues its programs, reading its
        # frames is what waits.
        following = next(pieces, None)
        yield waiting
        waiting = following


def plan_story(
    networks: Networks, story: Story, *, policy: ContextPolicy = "anchor"
) -> tuple[ShotPlan, ...]:
    """Plans of all shots of a story."""
    return tuple(
        plan_for(networks, story, index, policy=policy) for index in range(len(story.shots))
    )


def plan_for(
    model: Networks | OpenedModel, story: Story, index: int, *, policy: ContextPolicy = "anchor"
) -> ShotPlan:
    """The plan of one shot of a story for the windows and strides of a model, or its networks.

    Raises:
      IndexError: the story has no such shot; they count from 0.
    """
    networks = networks_of(model)
    window = networks.config.rollout.window
    return plan_shot(
        story,
        index,
        chunk_frames=window.chunk,
        temporal_stride=networks.config.vae.temporal_stride,
        budget=window.context,
        policy=policy,
    )


def context_sources(plans: Sequence[ShotPlan]) -> frozenset[TakeFrame]:
    """All video frames that some plans name as context."""
    return frozenset(frame.source for plan in plans for frame in plan.context)


def joined(parts: Sequence[PartFrames]) -> HostFrames:
    """Video frames of a chunk in host memory; waits for them."""
    return np.concatenate([np.asarray(part) for part in parts])


# Not one of the programs that film, which are timed and planned: it reads a chunk once. An array at
# a time, since latents and pixels may be on different devices.
@jax.jit
def _is_finite(array: Array) -> Bool[Array, ""]:
    """Whether no number of an array is NaN or infinite."""
    return jnp.isfinite(array).all()
