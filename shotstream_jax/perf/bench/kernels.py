"""Attention and decoding, which take most of a film's time, at its shapes and by every backend.

Attention is measured with a number of keys that is static (one program for each chunk number) and
with one that is chosen at run time (one program for all, as when filming).
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, get_args

import jax
import jax.numpy as jnp

from shotstream_jax.models.attention import attend
from shotstream_jax.models.cache import Prefix
from shotstream_jax.models.compute import AttentionBackend
from shotstream_jax.models.vae import init_vae
from shotstream_jax.models.vae_conv import Lowering
from shotstream_jax.models.vae_stream import decode_first, decode_next, init_decoder_cache
from shotstream_jax.perf.bench.timing import rate, seconds_of
from shotstream_jax.perf.peaks import peak_flops
from shotstream_jax.perf.plan.cost import decode_flops
from shotstream_jax.perf.plan.programs import FilmSizes

PLATFORMS: dict[AttentionBackend, tuple[str, ...]] = {
    "xla": ("cpu", "gpu", "tpu"),
    "cudnn": ("gpu",),
    "splash": ("tpu",),
}
"""Where each attention backend runs."""

LOWERINGS: tuple[Lowering, ...] = get_args(Lowering)

attend_jitted = jax.jit(attend, static_argnames="backend")
first_jitted = jax.jit(decode_first, static_argnames=("config", "dtype", "lowering"))
next_jitted = jax.jit(decode_next, static_argnames=("config", "dtype", "lowering"))


def kernel_rates(sizes: FilmSizes, *, repeats: int = 5) -> list[dict[str, Any]]:
    """Median seconds and rate of every kernel, or why it was not measured."""
    # A backend of another platform is listed as skipped: a table without it would look complete.
    here, peak = jax.default_backend(), peak_flops(jax.devices()[0].device_kind)
    results = []
    for about, flops, call in (*_attention(sizes), *_decoding(sizes)):
        where = PLATFORMS[about["backend"]] if "backend" in about else (here,)
        if here in where:
            found = attempt(functools.partial(_measure, call, flops, peak, repeats))
        else:
            found = {"skipped": f"runs on {', '.join(where)}, this is {here}"}
        results.append({**about, **found})
    return results


def attempt(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The measurement, or the first line of the error that prevented it."""
    try:
        return measure()
    # What XLA and kernels raise for out of memory, missing hardware and unsupported shapes.
    except (RuntimeError, NotImplementedError, ValueError) as error:
        return {"failed": str(error).strip().partition("\n")[0] or type(error).__name__}


def key_counts(sizes: FilmSizes) -> tuple[int, ...]:
    """Keys that the first, the middle and the last chunk of a shot see, own ones included."""
    window, tokens = sizes.rollout.window, sizes.frame_tokens
    # Time grows linearly in keys: two ends and the middle show whether it does.
    room = window.local // window.chunk
    chunks = sorted({1, (room + 1) // 2, room})
    return tuple((window.context + count * window.chunk) * tokens for count in chunks)


def attention_inputs(sizes: FilmSizes, key: Any, dtype: Any) -> tuple[Any, Any, Any]:
    """Random queries of a chunk, and keys and values for a full cache."""
    window, tokens, dit = sizes.rollout.window, sizes.frame_tokens, sizes.dit
    whole = (window.context + window.local) * tokens
    shapes = [
        (1, count, dit.heads, dit.head_dim) for count in (window.chunk * tokens, whole, whole)
    ]
    keys = jax.random.split(key, len(shapes))
    q, k, v = (jax.random.normal(*each, dtype) for each in zip(keys, shapes, strict=True))
    return q, k, v


Kernel = tuple[dict[str, Any], int, Callable[[], Any]]
"""Description, operations, and the call."""


def _attention(sizes: FilmSizes) -> Iterator[Kernel]:
    q, k, v = attention_inputs(sizes, jax.random.key(0), sizes.compute.dtype)
    counts = key_counts(sizes)
    for backend in PLATFORMS:
        for which, keys in enumerate(counts):
            # Two products (q k^T and the weighted values) of a multiplication and an addition each.
            flops = 4 * q.shape[1] * keys * sizes.dit.dim
            about = {
                "kernel": "attention",
                "backend": backend,
                "dtype": sizes.compute.dtype.__name__,
                "queries": q.shape[1],
                "keys": keys,
                "heads": sizes.dit.heads,
                "head_dim": sizes.dit.head_dim,
            }
            call = functools.partial(attend_jitted, q, backend=backend)
            known = functools.partial(call, k[:, :keys], v[:, :keys])
            chosen = functools.partial(call, k, v, Prefix(which=jnp.int32(which), counts=counts))
            yield {**about, "keys_known": "when compiled"}, flops, known
            yield {**about, "keys_known": "when run"}, flops, chosen


def _decoding(sizes: FilmSizes) -> Iterator[Kernel]:
    params = jax.jit(init_vae, static_argnums=1)(jax.random.key(1), sizes.vae)
    shape = (1, 1, *sizes.grid, sizes.vae.latent_channels)
    latents = jax.random.normal(jax.random.key(2), shape)
    dtype = sizes.compute.dtype
    # Zeros as the past: time does not depend on values.
    past = init_decoder_cache(sizes.vae, 1, *sizes.grid, dtype)
    for lowering in LOWERINGS:
        how = {"dtype": dtype, "lowering": lowering}
        calls = {
            "first": functools.partial(first_jitted, params, sizes.vae, latents, **how),
            "next": functools.partial(next_jitted, params, sizes.vae, past, latents, **how),
        }
        for name, call in calls.items():
            about = {
                "kernel": f"decode-{name}",
                "lowering": lowering,
                "dtype": dtype.__name__,
                "size": list(sizes.size),
            }
            yield about, decode_flops(sizes.vae, sizes.positions, first=name == "first"), call


def _measure(
    call: Callable[[], Any], flops: int, peak: float | None, repeats: int
) -> dict[str, Any]:
    seconds = seconds_of(call, repeats=repeats)
    return {"seconds": seconds, **rate(flops, seconds, peak)}
