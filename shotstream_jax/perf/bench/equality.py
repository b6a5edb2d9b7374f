"""Fast paths against the float32 XLA path, on fresh random inputs, at the shapes of a film.

The reference computes in float32 with matrix products at full precision, from the same numbers:
inputs and weights are rounded to bfloat16 first, so that only the arithmetic differs. An error is
the norm of the difference over the norm of the reference.
"""

import functools
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from shotstream_jax.models.attention import attend
from shotstream_jax.models.cache import KeyValue, Prefix, ShotCache, TextKeys
from shotstream_jax.models.compute import AttentionBackend, Compute
from shotstream_jax.models.dit import apply_cached, apply_merged, init_dit
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.vae import init_vae
from shotstream_jax.perf.bench.kernels import (
    LOWERINGS,
    PLATFORMS,
    attempt,
    attend_jitted,
    attention_inputs,
    first_jitted,
    key_counts,
    next_jitted,
)
from shotstream_jax.perf.plan.programs import FilmSizes
from shotstream_jax.rollout.chunk import commit_chunk
from shotstream_jax.rollout.merged import chunk_input
from shotstream_jax.schedule import TRAIN_STEPS
from shotstream_jax.typing import Array, Index, Latents, Params

# bfloat16 has 8 significant bits: one rounding is off by up to 2^-9 of a number. Rounding errors of
# 30 layers are random and add as their root: 2^-9 x sqrt(30 x a few) is about 2^-6, doubled here.
BF16_TOLERANCE = 2.0**-5
"""Relative error of a network in bfloat16."""

# A few roundings: of inputs to the matrix unit, of the softmax, of the output.
KERNEL_TOLERANCE = 2.0**-7
"""Relative error of one kernel in bfloat16."""

# float32 rounds at 2^-24; sums over thousands of terms in another order lose some ten bits of that.
FLOAT32_TOLERANCE = 1e-4
"""Relative error of the same float32 arithmetic in another order."""

_SHOT = 1
"""Shot number of the rotary phase; errors do not depend on it."""

Comparison = tuple[str, float, Callable[[], tuple[Array, Array]]]
"""Name, tolerance, and a function that returns the result with its reference."""


def equality(sizes: FilmSizes, *, seed: int | None = None) -> dict[str, Any]:
    """Compare every fast path of this platform; `seed` None draws one, which the result holds."""
    # Fresh inputs in every run: a path that is wrong on some inputs is found sooner or later.
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    checks = []
    for name, tolerance, compare in _checks(sizes, jax.random.key(seed)):
        found = attempt(functools.partial(_compared, compare, tolerance))
        checks.append({"path": name, "tolerance": tolerance, **found})
    return {
        "reference": "float32, XLA attention, conv3d, matrix products at highest precision",
        "seed": seed,
        "within": all(check.get("within", False) for check in checks),
        "checks": checks,
    }


def relative_error(found: Array, reference: Array) -> float:
    """Norm of the difference over the norm of the reference."""
    found, reference = (x.astype(jnp.float32) for x in (found, reference))
    return float(jnp.linalg.norm(found - reference) / jnp.linalg.norm(reference))


def _compared(compare: Callable[[], tuple[Array, Array]], tolerance: float) -> dict[str, Any]:
    error = relative_error(*compare())
    return {"error": error, "within": error <= tolerance}


def _checks(sizes: FilmSizes, key: Any) -> Iterator[Comparison]:
    here = jax.default_backend()
    backends: list[AttentionBackend] = [
        backend for backend, where in PLATFORMS.items() if here in where
    ]
    inputs = attention_inputs(sizes, key, jnp.bfloat16)
    for backend in backends:
        counts = key_counts(sizes)
        for which, keys in enumerate(counts):
            prefix = Prefix(which=jnp.int32(which), counts=counts)
            compare = functools.partial(_attention, inputs, keys, prefix, backend)
            yield f"attention {backend} bfloat16, {keys} keys", KERNEL_TOLERANCE, compare
    for lowering in LOWERINGS:
        decode = functools.partial(_decoding, sizes, key, lowering)
        yield (
            f"decode {lowering} float32",
            FLOAT32_TOLERANCE,
            functools.partial(decode, jnp.float32),
        )
        yield f"decode {lowering} bfloat16", BF16_TOLERANCE, functools.partial(decode, jnp.bfloat16)
    for backend in backends:
        for merged in (False, True):
            fast = Compute(dtype=jnp.bfloat16, attention=backend, merged=merged)
            name = f"transformer {backend} bfloat16{', merged passes' if merged else ''}"
            yield name, BF16_TOLERANCE, functools.partial(_transformer, sizes, key, fast)


def _attention(
    inputs: tuple[Array, Array, Array], keys: int, prefix: Prefix, backend: AttentionBackend
) -> tuple[Array, Array]:
    """A prefix of a full cache, against plain attention to just those keys."""
    q, k, v = inputs
    found = attend_jitted(q, k, v, prefix, backend=backend)
    q, k, v = (x.astype(jnp.float32) for x in (q, k[:, :keys], v[:, :keys]))
    with jax.default_matmul_precision("highest"):
        return found, jax.jit(attend)(q, k, v)


def _decoding(sizes: FilmSizes, key: Any, lowering: Any, dtype: Any) -> tuple[Array, Array]:
    """The first two latent frames of a clip, streamed."""
    params = _rounded(jax.jit(init_vae, static_argnums=1)(key, sizes.vae))
    shape = (1, 2, *sizes.grid, sizes.vae.latent_channels)
    latents = _rounded(jax.random.normal(key, shape))

    def decode(lowering: Any, dtype: Any) -> Array:
        how = {"dtype": dtype, "lowering": lowering}
        one, past = first_jitted(params, sizes.vae, latents[:, :1], **how)
        two, _ = next_jitted(params, sizes.vae, past, latents[:, 1:], **how)
        return jnp.concatenate([one, two], axis=1)

    # A GPU cuts float32 products to fewer bits by default; the lowerings are compared without.
    with jax.default_matmul_precision("highest"):
        reference = decode("conv3d", jnp.float32)
        if dtype == jnp.float32:
            return decode(lowering, dtype), reference
    return decode(lowering, dtype), reference


def _transformer(sizes: FilmSizes, key: Any, fast: Compute) -> tuple[Array, Array]:
    """The clean pass of a chunk, and one call for the last that a full cache holds."""
    # The last chunk sees the most keys: longest softmax sums, largest errors.
    window = sizes.rollout.window
    last = window.local // window.chunk - 1
    draw = jax.jit(_transformer_inputs, static_argnums=0)
    params, cache, x_t = draw(sizes, key)
    found = _velocity(params, sizes.dit, cache, last, x_t, fast)
    params, cache, x_t = (_widened(tree) for tree in (params, cache, x_t))
    with jax.default_matmul_precision("highest"):
        return found, _velocity(params, sizes.dit, cache, last, x_t, Compute())


def _transformer_inputs(sizes: FilmSizes, key: Any) -> tuple[Params, ShotCache, Latents]:
    """Weights, a full cache and noisy latents, in bfloat16."""
    dit, window, tokens = sizes.dit, sizes.rollout.window, sizes.frame_tokens
    slots = (window.context + window.local) * tokens
    shapes = {
        "kv": (dit.layers, 1, slots, dit.heads, dit.head_dim),
        "text": (dit.layers, 1, 1, dit.text_tokens, dit.heads, dit.head_dim),
        "x_t": (1, window.chunk, *sizes.grid, dit.latent_channels),
    }
    keys = iter(jax.random.split(key, 6))

    def normal(name: str) -> Array:
        return jax.random.normal(next(keys), shapes[name], jnp.bfloat16)

    cache = ShotCache(
        kv=KeyValue(key=normal("kv"), value=normal("kv")),
        text=TextKeys(key=normal("text"), value=normal("text")),
        frame_tokens=tokens,
        window=window,
    )
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), init_dit(next(keys), dit))
    return params, cache, normal("x_t")


@functools.partial(jax.jit, static_argnums=(1, 5))
def _velocity(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    chunk: Index,
    x_t: Latents,
    compute: Compute,
) -> Latents:
    """Velocity of a chunk after a finished one, for which the same latents stand in."""
    before = chunk_input(config, cache, chunk - 1, _SHOT, x_t, 0.0)
    given = chunk_input(config, cache, chunk, _SHOT, x_t, TRAIN_STEPS / 2)
    if compute.merged:
        inputs = before, given, cache.text
        return apply_merged(params, config, cache, *inputs, compute=compute).velocity
    cache = commit_chunk(params, config, cache, chunk - 1, _SHOT, x_t, compute=compute)
    return apply_cached(params, config, cache, given, compute=compute).velocity


def _rounded(tree: Any) -> Any:
    """Float32 numbers that bfloat16 can hold."""
    return _widened(jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree))


def _widened(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)
