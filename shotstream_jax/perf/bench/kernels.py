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
from shotstream_jax.models.configs import VAEConfig
from shotstream_jax.models.vae import init_decoder_cache, init_vae
from shotstream_jax.models.vae_decoder import DecoderCache
from shotstream_jax.models.vae_layers import ConvImpl
from shotstream_jax.perf.bench.timing import rate, seconds_of
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.perf.peaks import peak_flops
from shotstream_jax.perf.plan.cost import decode_flops
from shotstream_jax.rollout import programs
from shotstream_jax.typing import Latents, Params, Pixels

PLATFORMS: dict[AttentionBackend, tuple[str, ...]] = {
    "xla": ("cpu", "gpu", "tpu"),
    "cudnn": ("gpu",),
    "splash": ("tpu",),
}
"""Where each attention backend runs."""

CONV_IMPLS: tuple[ConvImpl, ...] = get_args(ConvImpl)

attend_jitted = jax.jit(attend, static_argnames="backend")


def kernel_rates(shape: FilmShape, *, repeats: int = 5) -> list[dict[str, Any]]:
    """Median seconds and rate of every kernel, or why it was not measured."""
    # A backend of another platform is listed as skipped: a table without it would look complete.
    here, peak = jax.default_backend(), peak_flops(jax.devices()[0].device_kind)
    results = []
    for about, flops, call in (*_attention(shape), *_decoding(shape)):
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


def key_counts(shape: FilmShape) -> tuple[int, ...]:
    """Keys that the first, the middle and the last chunk of a shot see, own ones included."""
    window, tokens = shape.config.rollout.window, shape.frame_tokens
    room = window.local // window.chunk
    # Time should grow with the keys that are seen: three points tell that from a kernel that
    # computes all and masks.
    chunks = sorted({1, (room + 1) // 2, room})
    return tuple((window.context + count * window.chunk) * tokens for count in chunks)


def attention_inputs(shape: FilmShape, key: Any, dtype: Any) -> tuple[Any, Any, Any]:
    """Random queries of a chunk, and keys and values for a full cache."""
    window, tokens, dit = shape.config.rollout.window, shape.frame_tokens, shape.config.dit
    whole = (window.context + window.local) * tokens
    shapes = [
        (1, count, dit.heads, dit.head_dim) for count in (window.chunk * tokens, whole, whole)
    ]
    keys = jax.random.split(key, len(shapes))
    q, k, v = (jax.random.normal(*each, dtype) for each in zip(keys, shapes, strict=True))
    return q, k, v


Kernel = tuple[dict[str, Any], int, Callable[[], Any]]
"""Description, operations, and the call."""


def _attention(shape: FilmShape) -> Iterator[Kernel]:
    q, k, v = attention_inputs(shape, jax.random.key(0), shape.compute.dtype)
    counts = key_counts(shape)
    for backend in PLATFORMS:
        for which, keys in enumerate(counts):
            # Scores and weighted values: two products, of two operations each, for keys that are
            # seen.
            flops = 4 * q.shape[1] * keys * shape.config.dit.dim
            about = {
                "kernel": "attention",
                "backend": backend,
                "dtype": shape.compute.dtype.__name__,
                "queries": q.shape[1],
                "keys": keys,
                "heads": shape.config.dit.heads,
                "head_dim": shape.config.dit.head_dim,
            }
            call = functools.partial(attend_jitted, q, backend=backend)
            known = functools.partial(call, k[:, :keys], v[:, :keys])
            chosen = functools.partial(call, k, v, Prefix(which=jnp.int32(which), counts=counts))
            yield {**about, "keys_known": "when compiled"}, flops, known
            yield {**about, "keys_known": "when run"}, flops, chosen


def _decoding(shape: FilmShape) -> Iterator[Kernel]:
    config = shape.config.vae
    params = jax.jit(init_vae, static_argnums=1)(jax.random.key(1), config)
    array_shape = (1, 1, *shape.grid, config.latent_channels)
    latents = jax.random.normal(jax.random.key(2), array_shape)
    dtype = shape.compute.dtype
    for conv_impl in CONV_IMPLS:
        calls = {
            "first": functools.partial(
                programs.decode_start, params, config, dtype, latents, conv_impl=conv_impl
            ),
            "next": _Stream(params, config, dtype, latents, conv_impl),
        }
        for name, call in calls.items():
            about = {
                "kernel": f"decode-{name}",
                "lowering": conv_impl,
                "dtype": dtype.__name__,
                "size": list(shape.size),
            }
            yield about, decode_flops(config, shape.positions, first=name == "first"), call


class _Stream:
    """Decodes one latent frame after another; each call writes over the cache of the one before."""

    def __init__(
        self, params: Params, config: VAEConfig, dtype: Any, latents: Latents, conv_impl: ConvImpl
    ):
        self._params, self._config, self._dtype = params, config, dtype
        self._latents, self._conv_impl = latents, conv_impl
        self._past: DecoderCache | None = None

    def __call__(self) -> Pixels:
        """Pixels of the next latent frame."""
        if self._past is None:
            rows, cols = self._latents.shape[2:4]
            # Zeros as the past: time does not depend on values.
            self._past = init_decoder_cache(self._config, 1, rows, cols, self._dtype)
        network = self._params, self._config, self._dtype
        pixels, self._past = programs.decode_continued(
            *network, self._latents, self._past, conv_impl=self._conv_impl
        )
        return pixels


def _measure(
    call: Callable[[], Any], flops: int, peak: float | None, repeats: int
) -> dict[str, Any]:
    seconds = seconds_of(call, repeats=repeats)
    return {"seconds": seconds, **rate(flops, seconds, peak)}
