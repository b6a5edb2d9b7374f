"""The one list of programs that film: each traced and compiled once for every shape it meets.

Filming, benchmarks, plans and comparisons all take the programs from here. Caches are donated: the
caller gives one up, and gets the new one in the same memory. Every program is run through a `Run`,
so that a profiler can time the stages of the rollout by name.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from shotstream_jax.models import cache as caches
from shotstream_jax.models import dit, vae
from shotstream_jax.models.cache import ShotCache, TextKeys, Window
from shotstream_jax.models.configs import DiTConfig, VAEConfig
from shotstream_jax.models.vae_decoder import DecoderCache
from shotstream_jax.models.vae_layers import ConvImpl, pixels_to_frames
from shotstream_jax.rollout import approximate, chunk, merged, shot
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.sharding import cache_shardings, replicated, split_rows
from shotstream_jax.typing import Array, Float, Latents, Params, Pixels, UInt8

Part = Literal[
    "text",
    "caption keys",
    "context encode",
    "context pass",
    "noise",
    "context pass and denoise",
    "denoise",
    "denoise whole shot",
    "clean pass",
    "clean pass and denoise",
    "turn back",
    "decode",
    "to video",
]
"""Stages of the rollout, in the order of a shot; nearly all of its time goes into these."""

Run = Callable[..., Any]
"""`run(part, program, *inputs, **settings)` returns `program(*inputs, **settings)`."""


def no_profile(part: Part, program: Callable[..., Any], *inputs: Any, **settings: Any) -> Any:
    """Run a stage without timing it."""
    return program(*inputs, **settings)


# Configs are frozen values, so that equal ones share a program and every size is a constant in it.
_network = functools.partial(jax.jit, static_argnames=("config", "compute"))
_steps = functools.partial(jax.jit, static_argnames=("config", "rollout", "compute"))

project_captions = _network(dit.encode_captions)
encode_image = jax.jit(vae.encode_images, static_argnames=("config", "conv_impl"))
# A full cache of the 1.3B at 480 x 832 takes 7.8 GB in bfloat16 (27 latent frames of keys and
# values in 30 layers). Donated, it is written in place; without that each write would hold two of
# them. `denoise` returns latents only and leaves its cache to be read again.
prepare = _network(chunk.prepare_shot, donate_argnames="cache")
commit = _network(chunk.commit_chunk, donate_argnames="cache")
denoise = _steps(chunk.denoise_chunk)
denoise_first = _steps(merged.context_pass_and_denoise, donate_argnames="cache")
denoise_next = _steps(merged.clean_pass_and_denoise, donate_argnames="cache")
denoise_and_keep = _steps(approximate.denoise_keeping_keys, donate_argnames="cache")
denoise_shot = _steps(shot.rollout_shot, donate_argnames="cache")
turn_back = jax.jit(chunk.turn_keys_back, static_argnames="config", donate_argnames="cache")


@functools.partial(jax.jit, static_argnums=(0, 1, 3, 4, 5, 6))
def new_cache(
    config: DiTConfig,
    window: Window,
    text: TextKeys,
    tokens: int,
    dtype: Any,
    mesh: Mesh | None,
    in_int8: bool,  # noqa: FBT001 - static by its place, as all of them
) -> ShotCache:
    """An empty cache, on the devices that film."""
    # Inside a program, so that each device fills its own heads and none holds the whole cache.
    cache = caches.init_cache(config, window, text, tokens, dtype, in_int8=in_int8)
    if mesh is None:
        return cache
    return jax.lax.with_sharding_constraint(cache, cache_shardings(cache, mesh))


@functools.partial(jax.jit, static_argnums=(1, 2), static_argnames="conv_impl")
def decode_start(
    params: Params,
    config: VAEConfig,
    dtype: Any,
    latents: Latents,
    *,
    conv_impl: ConvImpl | None = None,
) -> tuple[Pixels, DecoderCache]:
    """The first latent frame after a cut."""
    # By default it is this machine's implementation; plans for other chips name theirs.
    pixels, past = vae.decode_first(params, config, latents, dtype=dtype, conv_impl=conv_impl)
    # Clipped as in the public decoder: later shots encode these pixels and must see what is shown.
    return jnp.clip(pixels, -1, 1), past


# A program of its own: with a past, a latent frame shows a temporal stride of video frames; the one
# after a cut shows one. The Wan decoder's past, donated, is 1.9 GB in bfloat16 at 480 x 832.
@functools.partial(jax.jit, static_argnums=(1, 2), static_argnames="conv_impl", donate_argnums=4)
def decode_continued(
    params: Params,
    config: VAEConfig,
    dtype: Any,
    latents: Latents,
    past: DecoderCache,
    *,
    conv_impl: ConvImpl | None = None,
) -> tuple[Pixels, DecoderCache]:
    """Any other latent frame."""
    pixels, past = vae.decode_next(params, config, past, latents, dtype=dtype, conv_impl=conv_impl)
    return jnp.clip(pixels, -1, 1), past


@jax.jit
def to_video(
    pixels: Float[Array, "*axes height width 3"],
) -> UInt8[Array, "*axes height width 3"]:
    """Pixels of video frames as 8-bit colours."""
    # On the device, so that a quarter of the bytes of float32 pixels cross to the host.
    return pixels_to_frames(pixels)


def to_vae(networks: Networks, x: Float[Array, "batch frame row col chan"]) -> Array:
    """Frames where the autoencoder reads them: its own device, or rows on all of them."""
    if networks.vae_apart is not None:
        return jax.device_put(x, networks.vae_apart)
    # The autoencoder has no heads to split; split by rows, a v5e:2x2 needs 5.3 GiB a chip, not 7.8.
    return x if networks.mesh is None else jax.device_put(x, split_rows(x, networks.mesh))


def from_vae(networks: Networks, x: Array) -> Array:
    """What the autoencoder made, where the transformer can read it."""
    # Every device attends with its own heads to all tokens, so each needs the whole latent frame.
    return x if networks.mesh is None else jax.device_put(x, replicated(networks.mesh))
