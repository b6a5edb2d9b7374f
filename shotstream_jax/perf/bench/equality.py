"""Fast paths against the float32 XLA path, on fresh random inputs, at the shapes of a film.

The reference computes in float32 with matrix products at full precision, from the same numbers:
inputs and weights are rounded to bfloat16 first, so that only the arithmetic differs. An error is
the norm of the difference over the norm of the reference.
"""

import dataclasses
import functools
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from shotstream_jax.models.attention import attend
from shotstream_jax.models.cache import KeyValue, Prefix, ShotCache, TextKeys
from shotstream_jax.models.compute import AttentionBackend, Compute
from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.vae import init_vae
from shotstream_jax.perf.bench.kernels import (
    CONV_IMPLS,
    PLATFORMS,
    attempt,
    attend_jitted,
    attention_inputs,
    key_counts,
)
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.rollout import programs
from shotstream_jax.schedule import TRAIN_STEPS
from shotstream_jax.typing import Array, Latents, Params

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


def equality(shape: FilmShape, *, seed: int | None = None) -> dict[str, Any]:
    """Compare every fast path of this platform; `seed` None draws one, which the result holds."""
    # Fresh inputs in every run: a path that is wrong on some inputs is found sooner or later.
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    checks = []
    for name, tolerance, compare in _checks(shape, jax.random.key(seed)):
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


def _checks(shape: FilmShape, key: Any) -> Iterator[Comparison]:
    here = jax.default_backend()
    backends: list[AttentionBackend] = [
        backend for backend, where in PLATFORMS.items() if here in where
    ]
    inputs = attention_inputs(shape, key, jnp.bfloat16)
    for backend in backends:
        counts = key_counts(shape)
        for which, keys in enumerate(counts):
            prefix = Prefix(which=jnp.int32(which), counts=counts)
            compare = functools.partial(_attention, inputs, keys, prefix, backend)
            yield f"attention {backend} bfloat16, {keys} keys", KERNEL_TOLERANCE, compare
    for conv_impl in CONV_IMPLS:
        decode = functools.partial(_decoding, shape, key, conv_impl)
        yield (
            f"decode {conv_impl} float32",
            FLOAT32_TOLERANCE,
            functools.partial(decode, jnp.float32),
        )
        yield (
            f"decode {conv_impl} bfloat16",
            BF16_TOLERANCE,
            functools.partial(decode, jnp.bfloat16),
        )
    for backend in backends:
        for merged in (False, True):
            fast = Compute(dtype=jnp.bfloat16, attention=backend)
            name = f"transformer {backend} bfloat16{', merged passes' if merged else ''}"
            compare = functools.partial(_transformer, shape, key, fast, merged=merged)
            yield name, BF16_TOLERANCE, compare


def _attention(
    inputs: tuple[Array, Array, Array], keys: int, prefix: Prefix, backend: AttentionBackend
) -> tuple[Array, Array]:
    """A prefix of a full cache, against plain attention to just those keys."""
    q, k, v = inputs
    found = attend_jitted(q, k, v, prefix, backend=backend)
    q, k, v = (x.astype(jnp.float32) for x in (q, k[:, :keys], v[:, :keys]))
    with jax.default_matmul_precision("highest"):
        return found, jax.jit(attend)(q, k, v)


def _decoding(shape: FilmShape, key: Any, conv_impl: Any, dtype: Any) -> tuple[Array, Array]:
    """The first two latent frames of a clip, streamed."""
    params = _rounded(jax.jit(init_vae, static_argnums=1)(key, shape.config.vae))
    array_shape = (1, 2, *shape.grid, shape.config.vae.latent_channels)
    latents = _rounded(jax.random.normal(key, array_shape))

    def decode(conv_impl: Any, dtype: Any) -> Array:
        how = params, shape.config.vae, dtype
        one, past = programs.decode_start(*how, latents[:, :1], conv_impl=conv_impl)
        two, _ = programs.decode_continued(*how, latents[:, 1:], past, conv_impl=conv_impl)
        return jnp.concatenate([one, two], axis=1)

    # A GPU cuts float32 products to fewer bits by default; implementations are compared without.
    with jax.default_matmul_precision("highest"):
        reference = decode("conv3d", jnp.float32)
        if dtype == jnp.float32:
            return decode(conv_impl, dtype), reference
    return decode(conv_impl, dtype), reference


def _transformer(shape: FilmShape, key: Any, fast: Compute, *, merged: bool) -> tuple[Array, Array]:
    """The clean pass of a chunk, and one step of the last chunk that a full cache holds."""
    draw = jax.jit(_transformer_inputs, static_argnums=0)
    params, cache, x_t = draw(shape, key)
    found = _velocity(shape, params, cache, x_t, fast, merged=merged)
    # Drawn again: the programs write over the cache that they are passed.
    params, cache, x_t = (_widened(tree) for tree in draw(shape, key))
    with jax.default_matmul_precision("highest"):
        return found, _velocity(shape, params, cache, x_t, Compute(), merged=False)


def _transformer_inputs(shape: FilmShape, key: Any) -> tuple[Params, ShotCache, Latents]:
    """Weights and a full cache in bfloat16, and noisy latents."""
    dit, window, tokens = shape.config.dit, shape.config.rollout.window, shape.frame_tokens
    slots = (window.context + window.local) * tokens
    shapes = {
        "kv": (dit.layers, 1, slots, dit.heads, dit.head_dim),
        "text": (dit.layers, 1, 1, dit.text_tokens, dit.heads, dit.head_dim),
        "x_t": (1, window.chunk, *shape.grid, dit.latent_channels),
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
    # Latents are float32 in a film; these are numbers that bfloat16 can hold, too.
    return params, cache, normal("x_t").astype(jnp.float32)


def _velocity(
    shape: FilmShape,
    params: Params,
    cache: ShotCache,
    x_t: Latents,
    compute: Compute,
    *,
    merged: bool,
) -> Latents:
    """Of the last chunk, after a clean pass of the same latents as the chunk before it."""
    window = shape.config.rollout.window
    last = window.local // window.chunk - 1
    dit, noise = (params, shape.config.dit), x_t[None]
    # One step from pure noise, where sigma is 1: its x0 is the noise less the velocity.
    one_step = dataclasses.replace(shape.config.rollout, steps=(TRAIN_STEPS,))
    steps = {"rollout": one_step, "compute": compute}
    if merged:
        x0, _ = programs.denoise_next(*dit, cache, last, _SHOT, x_t, noise, **steps)
    else:
        cache = programs.commit(*dit, cache, last - 1, _SHOT, x_t, compute=compute)
        x0 = programs.denoise(*dit, cache, last, _SHOT, noise, **steps)
    return x_t - x0


def _rounded(tree: Any) -> Any:
    """Float32 numbers that bfloat16 can hold."""
    return _widened(jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree))


def _widened(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)
