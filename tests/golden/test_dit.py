"""One call of the network at a time: bidirectional, teacher, cached, and dense masked."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange

from shotstream_jax.models import dit
from shotstream_jax.models.cache import (
    ShotCache,
    Window,
    chunk_slot,
    init_cache,
    write_chunk,
    write_context,
)
from shotstream_jax.models.rope import grid_positions, rotation

apply_dense_jit = jax.jit(dit.apply_dense, static_argnames=("config", "levels"))
keys_dense = jax.jit(dit.keys_dense, static_argnames="config")
apply_cached = jax.jit(dit.apply_cached, static_argnames="config")
keys_cached = jax.jit(dit.keys_cached, static_argnames="config")


def ours(recorded):
    return jnp.asarray(rearrange(recorded, "batch chan frame row col -> batch frame row col chan"))


def theirs(latents):
    return rearrange(np.asarray(latents), "batch frame row col chan -> batch chan frame row col")


@pytest.fixture
def recorded(golden):
    return golden.arrays("dit_golden")


@pytest.fixture
def rope(dit_config):
    def of(frames, shots, latents):
        rows, cols = (n // p for n, p in zip(latents.shape[2:4], dit_config.patch, strict=True))
        at = grid_positions(jnp.asarray(frames)[None], jnp.asarray(shots)[None], rows, cols)
        return rotation(at, dit_config.head_dim, dit_config.shot_phase)

    return of


@pytest.fixture
def captions(dit_params, dit_config):
    return lambda text: dit.encode_captions(dit_params, dit_config, jnp.asarray(text)[None])


@pytest.fixture
def apply_dense(dit_params, dit_config, captions, rope):
    def run(latents, timesteps, text, shots, **how):
        x_t = ours(latents)
        return theirs(
            apply_dense_jit(
                dit_params,
                dit_config,
                x_t,
                jnp.asarray(timesteps).reshape(1, -1),
                rope(np.arange(x_t.shape[1]), shots, x_t),
                captions(text),
                caption_index=jnp.asarray(shots)[None],
                **how,
            ).velocity
        )

    return run


def test_bidirectional(recorded, apply_dense, agree):
    shots = np.zeros(recorded["bi_x"].shape[2], np.int32)
    velocity = apply_dense(recorded["bi_x"], recorded["bi_t"], recorded["bi_ctx"], shots)
    agree(velocity, recorded["bi_y"])


def test_teacher_with_a_caption_a_shot(recorded, apply_dense, agree):
    call = recorded["teacher_x"], recorded["teacher_t"]
    shots = recorded["teacher_flags"]
    agree(apply_dense(*call, recorded["teacher_ctx"], shots), recorded["teacher_y"])


def test_teacher_with_one_caption_ignores_shot_indices_in_the_text(recorded, apply_dense, agree):
    call = recorded["teacher_x"], recorded["teacher_t"]
    expected = recorded["teacher_y_single_caption"]
    errors = []
    for text in recorded["teacher_ctx"]:
        velocity = apply_dense(*call, text[None], recorded["teacher_flags"])
        errors.append(np.abs(velocity - expected).max())
    best = recorded["teacher_ctx"][int(np.argmin(errors))]
    agree(apply_dense(*call, best[None], recorded["teacher_flags"]), expected)


def test_dense_masked(recorded, apply_dense, agree):
    frames = recorded["train_x"].shape[2]
    shots = recorded["train_flags"]
    context, chunk = int((shots != shots[-1]).sum()), recorded["full_b0s0_x"].shape[2]
    levels = [context] + [chunk] * ((frames - context) // chunk)
    velocity = apply_dense(
        recorded["train_x"],
        recorded["train_t"],
        recorded["train_ctx"],
        shots,
        levels=tuple(levels),
    )
    agree(velocity, recorded["train_y"])


class Replay:
    """The cached passes of one recorded shot, in order, against our cache."""

    def __init__(self, name, recorded, dit_params, dit_config, captions, rope):
        self.name, self.recorded = name, recorded
        self.sizes = dit_params, dit_config
        self.rope = rope
        self.context = ours(recorded[f"{name}_context_latents"])
        self.shots = recorded[f"{name}_flags"]
        self.chunk = recorded[f"{name}_b0s0_x"].shape[2]
        self.text = captions(recorded["teacher_ctx"])
        steps = [re.match(rf"{name}_b(\d+)s(\d+)_x$", key) for key in recorded]
        self.steps = sorted((int(m[1]), int(m[2])) for m in steps if m)

    def __getitem__(self, key):
        return self.recorded[f"{self.name}_{key}"]

    def prefill(self, window: Window) -> ShotCache:
        frames = np.arange(window.context)
        at = self.rope(frames, self.shots[: window.context], self.context)
        index = jnp.asarray(self.shots[: window.context])[None]
        call = (self.context, jnp.zeros((1, 1)), at, self.text)
        kv = keys_dense(*self.sizes, *call, caption_index=index)
        self.velocity = apply_dense_jit(*self.sizes, *call, caption_index=index).velocity
        target = jax.tree.map(lambda x: x[:, :, self.shots[-1]][:, :, None], self.text)
        rows, cols = self.context.shape[2] // 2, self.context.shape[3] // 2
        cache = init_cache(self.sizes[1], window, target, rows * cols)
        return write_context(dataclasses.replace(cache, text=target), kv)

    def play(self, cache: ShotCache, agree) -> ShotCache:
        """Every recorded step; the last step of a chunk is what is committed."""
        for chunk, step in self.steps:
            x_t = ours(self[f"b{chunk}s{step}_x"])
            first = cache.window.context + self.chunk * chunk
            frames = np.arange(first, first + self.chunk)
            inputs = dit.ChunkInput(
                latents=x_t,
                timesteps=jnp.full((1, 1), self[f"b{chunk}s{step}_t"]),
                rope=self.rope(frames, self.shots[frames], x_t),
                slot=chunk_slot(cache.window, cache.frame_tokens, chunk),
            )
            velocity = apply_cached(*self.sizes, cache, inputs).velocity
            agree(theirs(velocity), self[f"b{chunk}s{step}_y"])
            if (chunk, step + 1) not in self.steps:
                cache = write_chunk(cache, keys_cached(*self.sizes, cache, inputs), chunk)
        return cache


@pytest.fixture
def replay(recorded, dit_params, dit_config, captions, rope):
    return functools.partial(
        Replay,
        recorded=recorded,
        dit_params=dit_params,
        dit_config=dit_config,
        captions=captions,
        rope=rope,
    )


def window_of(shot: Replay, sink_chunks: int) -> Window:
    """Context and local frames as large as the recorded caches."""
    context = shot.context.shape[1]
    frame_tokens = shot["ctx_k0"].shape[1] // context
    local = shot["kv_k0"].shape[1] // frame_tokens
    sink = sink_chunks * shot.chunk
    return Window(chunk=shot.chunk, context=context, local=local, sink=sink)


@pytest.mark.parametrize(("name", "sink_chunks"), [("full", 0), ("window", 0), ("sink", 1)])
def test_cached(replay, agree, name, sink_chunks):
    shot = replay(name)
    window = window_of(shot, sink_chunks)
    cache = shot.prefill(window)
    agree(theirs(shot.velocity), shot["prefill_y"])
    for layer in range(shot.sizes[1].layers):
        agree(cache.context.key[layer], shot[f"ctx_k{layer}"])
        agree(cache.context.value[layer], shot[f"ctx_v{layer}"])

    cache = shot.play(cache, agree)
    order = chunks_in_order(window, 1 + shot.steps[-1][0], cache.frame_tokens)
    for layer in range(shot.sizes[1].layers):
        agree(cache.kv.key[layer][:, order], shot[f"kv_k{layer}"])
        agree(cache.kv.value[layer][:, order], shot[f"kv_v{layer}"])


def chunks_in_order(window: Window, chunks: int, frame_tokens: int) -> np.ndarray:
    """Slots of the chunks that the ring still holds, oldest first, as the recording has them."""
    tokens = window.chunk * frame_tokens
    newest_at = {int(chunk_slot(window, frame_tokens, c).start): c for c in range(chunks)}
    starts = sorted(newest_at, key=newest_at.get)
    return np.concatenate([np.arange(start, start + tokens) for start in starts])
