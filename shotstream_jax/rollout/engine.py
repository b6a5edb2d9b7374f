"""Filming as a pure function of a state that is a value.

    state = engine.cut(plan, context)                  a camera that has filmed nothing yet
    state, filmed = engine.next_chunk(state, noise)    denoise, decode
    state, filmed = engine.replay(state, latents)      the same, of latents that exist already
    state = engine.continue_(state, caption)           later chunks are filmed to another caption

An engine owns no film: what a state holds is all that its next chunk depends on, and its caller
decides what is kept. Programs write caches in place, so a state is used up by the call it is passed
to; an engine with `reuse_states` copies first, and any state may be used again.

A chunk's clean pass is put off until a chunk after it needs it. A take's last chunk never pays for
one, and where passes are merged it shares the pass of the next chunk's first step.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from shotstream_jax.models.cache import ShotCache, TextKeys
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.models.vae_decoder import DecoderCache
from shotstream_jax.rollout import programs
from shotstream_jax.rollout.chunk import (
    ChunkNoise,
    Context,
    check_positions,
    chunk_noise,
    chunk_number,
    slot_captions,
)
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.programs import Run, no_profile
from shotstream_jax.rollout.shot_state import DecodedChunk, PartPixels, ShotState
from shotstream_jax.story import ShotPlan
from shotstream_jax.typing import Array, Float, Latents, Params

# Keys of six context captions and the shot's, and as many again: 94 MB each of a 1.3B in bfloat16.
_CAPTIONS_HELD = 16
# Trained chunks at which re-basing commits no more than the chunk before.
_SHORTEST_REBASED = 2


class Engine:
    """Films takes of one size with one model."""

    def __init__(
        self,
        networks: Networks,
        size: tuple[int, int],
        *,
        run: Run = no_profile,
        reuse_states: bool = False,
    ):
        """Bind networks; no array is allocated yet.

        Args:
          networks: what to film with.
          size: height and width in pixels.
          run: runs every program, see `programs.py`.
          reuse_states: leave states intact that are passed in, at the price of a copy a pass.

        Raises:
          ValueError: a size that does not divide into patches.
        """
        self.networks, self.size = networks, size
        self.grid = networks.config.latent_grid(size)
        self.run, self._reuse = run, reuse_states
        self._text: dict[str, TextKeys] = {}

    @property
    def context_slots(self) -> int:
        """Context frames that a cut sees."""
        return self.networks.config.rollout.window.context

    def cut(
        self, plan: ShotPlan, context: Sequence[Latents], *, blank: ShotCache | None = None
    ) -> ShotState:
        """Begin a take: its context is what later chunks see of earlier shots.

        Args:
          plan: what to film.
          context: one latent frame for each of the plan's context frames.
          blank: a cache that is no longer needed, to be written over.

        Raises:
          ValueError: context that does not fill every slot, or a take that positions do not reach.
        """
        slots = self.context_slots
        if not len(context) == len(plan.context) or len(context) not in (0, slots):
            raise ValueError(
                f"Shot {plan.shot_id} names {len(plan.context)} context frames and is given "
                f"{len(context)}; this model has {slots} slots, and a cut fills all or none. "
                "Repeat frames to fill them, those that matter most last."
            )
        self.check_length(plan)
        *captions, own = slot_captions(plan, slots)
        shape = (1, slots, *self.grid, self.networks.config.dit.latent_channels)
        shots = [frame.rope_shot for frame in plan.context] or [0] * slots
        return ShotState(
            cache=self._blank_cache(own) if blank is None else blank,  # old keys are never read
            context=Context(
                latents=jnp.concatenate(context, axis=1) if context else jnp.zeros(shape),
                shots=jnp.asarray([shots], jnp.int32),
                text=_stack_captions([self._text_keys(caption) for caption in captions]),
            ),
            pending=(),
            recent=(),
            decoder=None,  # across a cut its past would be of another picture
            chunks=0,
            caption=own,
            recent_captions=(),
            rope_shot=plan.rope_shot,
            positions=plan.positions,
        )

    def continue_(
        self, state: ShotState, caption: str, *, keys: Literal["keep", "recache"] = "keep"
    ) -> ShotState:
        """Film later chunks to another caption, at a chunk edge.

        "keep" leaves the newest chunk's keys under the caption it was filmed to, "recache" writes
        them under the new one.
        """
        # Clean passes read the caption: run now they read the old one, left pending the new one.
        state = self._committed(state) if keys == "keep" else self._prepared(state)
        # A copy: the cache is donated with all it holds, the caption's keys are used again.
        text = jax.tree.map(jnp.copy, self._text_keys(caption))
        cache = dataclasses.replace(state.cache, text=text)
        return dataclasses.replace(state, cache=cache, caption=caption)

    def next_chunk(self, state: ShotState, noise: ChunkNoise) -> tuple[ShotState, DecodedChunk]:
        """Denoise the next chunk from its noise, and decode it."""
        state, latents = self._denoised(state, noise)
        return self._finished(state, latents, committed=self._keeps_noisy_keys)

    def replay(self, state: ShotState, latents: Latents) -> tuple[ShotState, DecodedChunk]:
        """Take a chunk that was filmed before as the next one, and decode it.

        Its clean pass, and the context's, are run when a chunk after it is filmed.
        """
        return self._finished(state, latents, committed=False)

    def whole_take(
        self, state: ShotState, noise: Sequence[ChunkNoise]
    ) -> tuple[ShotState, tuple[DecodedChunk, ...]]:
        """All chunks of a take in one program, then decoded: the same film, offline.

        Raises:
          ValueError: positions that are not running, or approximations that need single chunks.
        """
        if state.positions != "running" and (
            state.chunks + len(noise) > self.networks.config.rollout.shot_chunks
        ):
            raise ValueError(
                f"A take of {state.chunks + len(noise)} chunks with {state.positions} positions is "
                "not one program; film it chunk by chunk, or use running positions."
            )
        if self.networks.merged_passes or self._keeps_noisy_keys:
            raise ValueError(
                "Whole shots are filmed with clean passes of their own; leave out merged passes "
                "and no-clean-pass, or film chunk by chunk."
            )
        state = self._committed(state)
        inputs = self._cache(state), state.chunks, state.rope_shot, jnp.stack(noise)
        latents, cache = self.run(
            "denoise whole shot", programs.denoise_shot, *self._dit, *inputs, **self._steps
        )
        state, filmed = dataclasses.replace(state, cache=cache), []
        for chunk in jnp.split(latents, len(noise), axis=1):
            state, decoded = self._finished(state, chunk, committed=False)
            filmed.append(decoded)
        # The program has committed all chunks but the last.
        return dataclasses.replace(state, pending=state.pending[-1:]), tuple(filmed)

    def noise(self, plan: ShotPlan, chunk: int) -> ChunkNoise:
        """Noise of a chunk of a take, counted from the take's first; nothing else changes it."""
        rollout = self.networks.config.rollout
        channels = self.networks.config.dit.latent_channels
        return chunk_noise(
            plan.seed,
            plan.noise_shot,
            plan.take,
            chunk,
            steps=len(rollout.steps),
            shape=(1, rollout.window.chunk, *self.grid, channels),
        )

    def encode_frame(self, frame: Float[Array, "height width 3"]) -> Latents:
        """One video frame as one latent frame, as context is shown to the network."""
        networks = self.networks
        image = programs.to_vae(networks, frame[None, None])
        vae = networks.vae, networks.config.vae
        return programs.from_vae(
            networks, self.run("context encode", programs.encode_image, *vae, image)
        )

    def check_length(self, plan: ShotPlan, before: int = 0) -> None:
        """Refuse a plan that positions do not reach, `before` chunks after its cut.

        Raises:
          ValueError: with both lengths.
        """
        last, trained = before + plan.chunks - 1, self.networks.config.rollout.shot_chunks
        check_positions(self.networks.config, plan.positions, last)
        if plan.positions == "rebased" and last >= trained and self._keeps_noisy_keys:
            raise ValueError(
                f"Shot {plan.shot_id} is longer than the trained {trained} chunks, and re-based "
                "positions need the clean passes that no-clean-pass leaves out; turn positions "
                "back, or film exactly."
            )

    def _denoised(self, state: ShotState, noise: ChunkNoise) -> tuple[ShotState, Latents]:
        merged = self.networks.merged_passes and self._can_merge(state)
        if not merged:
            state = self._committed(state)
        number = self._number(state)
        if self._keeps_noisy_keys:
            inputs = self._cache(state), number, state.rope_shot, noise
            latents, cache = self.run(
                "denoise", programs.denoise_and_keep, *self._dit, *inputs, **self._steps
            )
            state = dataclasses.replace(state, cache=cache)
            return self._turned(state, state.chunks + 1), latents
        if merged:
            return self._denoised_merged(state, number, noise)
        inputs = state.cache, number, state.rope_shot, noise
        latents = self.run("denoise", programs.denoise, *self._dit, *inputs, **self._steps)
        return state, latents

    def _can_merge(self, state: ShotState) -> bool:
        """Whether what the cache lacks is one pass, at the number before the next chunk's."""
        if self._keeps_noisy_keys:
            return False
        if state.context is not None:
            return not state.pending  # replayed chunks come between context and next chunk
        # Re-basing a model of two trained chunks commits one chunk as 0 and films the next as 1.
        trained = self.networks.config.rollout.shot_chunks
        adjacent = self._number(state) == state.chunks or (
            state.positions == "rebased" and trained == _SHORTEST_REBASED
        )
        return len(state.pending) == 1 and adjacent

    def _denoised_merged(
        self, state: ShotState, number: int, noise: ChunkNoise
    ) -> tuple[ShotState, Latents]:
        """What the cache still lacks, in the pass of the first denoising step."""
        cache = self._cache(state)
        if state.context is not None:
            part, program = "context pass and denoise", programs.denoise_first
            text = self._text_keys(state.caption)
            inputs = cache, state.context, text, state.rope_shot, noise
        else:
            part, program = "clean pass and denoise", programs.denoise_next
            inputs = cache, number, state.rope_shot, state.pending[0], noise
        latents, cache = self.run(part, program, *self._dit, *inputs, **self._steps)
        return dataclasses.replace(state, cache=cache, context=None, pending=()), latents

    def _finished(
        self, state: ShotState, latents: Latents, *, committed: bool
    ) -> tuple[ShotState, DecodedChunk]:
        """Count a chunk, decode it, and leave its clean pass for later."""
        decoder, pixels = self._decoded(state.decoder, latents)
        parts = tuple(self.run("to video", programs.to_video, shown)[0] for shown in pixels)
        state = dataclasses.replace(
            state,
            pending=state.pending if committed else (*state.pending, latents),
            decoder=decoder,
            chunks=state.chunks + 1,
        )
        return state, DecodedChunk(latents=latents, pixels=pixels, parts=parts)

    def _decoded(
        self, decoder: DecoderCache | None, latents: Latents
    ) -> tuple[DecoderCache | None, tuple[PartPixels, ...]]:
        """One latent frame at a time: the first after a cut has a program of its own."""
        networks, pixels = self.networks, []
        if self._reuse:
            decoder = jax.tree.map(jnp.copy, decoder)  # the program below is given it to overwrite
        for frame in jnp.split(programs.to_vae(networks, latents), latents.shape[1], axis=1):
            arguments = networks.vae, networks.config.vae, networks.decode_dtype, frame
            if decoder is None:
                shown, decoder = self.run("decode", programs.decode_start, *arguments)
            else:
                shown, decoder = self.run("decode", programs.decode_continued, *arguments, decoder)
            pixels.append(shown)
        return decoder, tuple(pixels)

    def _committed(self, state: ShotState) -> ShotState:
        """The state with everything in its cache that the next chunk is to see."""
        state = self._prepared(state)
        first = state.chunks - len(state.pending)
        for chunk, latents in enumerate(state.pending, first):
            state = self._commit_chunk(state, chunk, latents)
        return dataclasses.replace(state, pending=())

    def _prepared(self, state: ShotState) -> ShotState:
        """The state with its context in its cache."""
        if state.context is None:
            return state
        inputs = self._cache(state), state.context, self._text_keys(state.caption)
        cache = self.run("context pass", programs.prepare, *self._dit, *inputs, **self._how)
        return dataclasses.replace(state, cache=cache, context=None)

    def _commit_chunk(self, state: ShotState, chunk: int, latents: Latents) -> ShotState:
        """Write the clean keys of chunk `chunk` where the chunk after it expects them."""
        trained = self.networks.config.rollout.shot_chunks
        if state.positions != "rebased":
            number = chunk_number(self.networks.config, state.positions, chunk)
            return self._turned(self._clean_pass(state, number, latents), chunk + 1)
        if chunk + 1 < trained:  # the next chunk still has a number of its own
            state = self._clean_pass(state, chunk, latents)
        else:
            # Oldest first: the clean pass of a later chunk sees those before it.
            own = state.cache.text
            for number, held in enumerate(state.recent):
                text = jax.tree.map(jnp.copy, self._text_keys(state.recent_captions[number]))
                state = _with_text(state, text)
                state = self._clean_pass(state, number, held)
            state = self._clean_pass(_with_text(state, own), trained - 2, latents)
        held = trained - 2
        return dataclasses.replace(
            state,
            recent=(*state.recent, latents)[-held:] if held else (),
            recent_captions=(*state.recent_captions, state.caption)[-held:] if held else (),
        )

    def _clean_pass(self, state: ShotState, number: int, latents: Latents) -> ShotState:
        inputs = self._cache(state), number, state.rope_shot, latents
        cache = self.run("clean pass", programs.commit, *self._dit, *inputs, **self._how)
        return dataclasses.replace(state, cache=cache)

    def _turned(self, state: ShotState, chunk: int) -> ShotState:
        """The keys that chunk `chunk` is to see, where positions are turned back."""
        trained = self.networks.config.rollout.shot_chunks
        if state.positions != "turned" or chunk < trained:  # not full: no key has to leave
            return state
        config = self.networks.config.dit
        cache = self.run("turn back", programs.turn_back, self._cache(state), config=config)
        return dataclasses.replace(state, cache=cache)

    def _number(self, state: ShotState) -> int:
        """The number that the next chunk is filmed as."""
        return chunk_number(self.networks.config, state.positions, state.chunks)

    def _cache(self, state: ShotState) -> ShotCache:
        """A cache to be donated."""
        return jax.tree.map(jnp.copy, state.cache) if self._reuse else state.cache

    def _blank_cache(self, caption: str) -> ShotCache:
        networks = self.networks
        return programs.new_cache(
            networks.config.dit,
            networks.config.rollout.window,
            self._text_keys(caption),
            networks.config.frame_tokens(self.size),
            networks.compute.dtype,
            networks.mesh,
            networks.approximation.int8_cache,
        )

    def _text_keys(self, caption: str) -> TextKeys:
        """Cross-attention keys and values of a caption; those used last are kept."""
        keys = self._text.pop(caption, None)
        if keys is None:
            text = self.run("text", self.networks.encode_text, [caption])[None]
            inputs = *self._dit, text
            keys = self.run("caption keys", programs.project_captions, *inputs, **self._how)
        self._text[caption] = keys  # last again: a dict begins with the least recently used
        while len(self._text) > _CAPTIONS_HELD:
            del self._text[next(iter(self._text))]
        return keys

    @property
    def _keeps_noisy_keys(self) -> bool:
        return not self.networks.approximation.clean_pass

    @property
    def _dit(self) -> tuple[Params, DiTConfig]:
        return self.networks.dit, self.networks.config.dit

    @property
    def _how(self) -> dict[str, Compute]:
        return {"compute": self.networks.compute}

    @property
    def _steps(self) -> dict[str, Any]:
        return {"rollout": self.networks.config.rollout, **self._how}


def _with_text(state: ShotState, text: TextKeys) -> ShotState:
    return dataclasses.replace(state, cache=dataclasses.replace(state.cache, text=text))


def _stack_captions(captions: Sequence[TextKeys]) -> TextKeys:
    return jax.tree.map(lambda *keys: jnp.concatenate(keys, axis=2), *captions)
