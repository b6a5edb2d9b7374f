"""A peer implementation in PyTorch, timed on the same device at the same sizes.

diffusers' Wan transformer and autoencoder, compiled, with random weights of the same sizes, on
inputs of the same shapes: one call of the bidirectional transformer over a whole shot, and decoding
a whole shot. torch is not a dependency of this package: it is imported when the comparison runs.
"""

import functools
import importlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.models.cache import TextKeys
from shotstream_jax.models.dit import apply_dense, encode_captions, init_dit
from shotstream_jax.models.rope import grid_positions, rotation
from shotstream_jax.models.vae import init_vae
from shotstream_jax.perf.bench.timing import seconds_of
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.rollout import programs
from shotstream_jax.schedule import TRAIN_STEPS
from shotstream_jax.typing import Array, Latents, Params

_MODULES = ("torch", "diffusers")


def compare_with_peer(
    shape: FilmShape, *, device: str = "cuda", compiled: bool = True, repeats: int = 3
) -> dict[str, Any]:
    """Seconds of both implementations, part by part, and how many times faster ours is.

    Where torch, diffusers or a device for them is missing, `skipped` says which.
    """
    try:
        torch, diffusers = (importlib.import_module(name) for name in _MODULES)
    except ImportError as error:
        return {"skipped": f"{error.name or error} is not installed"}
    if device == "cuda" and not torch.cuda.is_available():
        return {"skipped": "torch sees no CUDA device"}
    parts = {}
    for part, (build_ours, build_theirs) in _PARTS.items():
        seconds = seconds_of(build_ours(shape), repeats=repeats)
        call = _their_call(torch, build_theirs(diffusers, shape), shape, device, compiled=compiled)
        theirs = _their_seconds(torch, call, device, repeats)
        # Above 1 ours is faster.
        parts[part] = {"seconds": seconds, "peer_seconds": theirs, "ratio": theirs / seconds}
    return {
        "peer": f"diffusers {diffusers.__version__}, torch {torch.__version__}",
        "compiled": compiled,
        "dtype": shape.compute.dtype.__name__,
        "frames": shape.shot_latent_frames,
        "size": list(shape.size),
        "parts": parts,
    }


def _our_transformer(shape: FilmShape) -> Callable[[], Any]:
    dit, compute, frames = shape.config.dit, shape.compute, shape.shot_latent_frames
    rows, cols = (side // patch for side, patch in zip(shape.grid, dit.patch, strict=True))

    @jax.jit
    def inputs(key: Any) -> tuple[Params, TextKeys, Latents]:
        params = jax.tree.map(lambda x: x.astype(compute.dtype), init_dit(key, dit))
        text = jax.random.normal(key, (1, 1, dit.text_tokens, dit.text_dim), compute.dtype)
        latents = jax.random.normal(key, (1, frames, *shape.grid, dit.latent_channels))
        return params, encode_captions(params, dit, text, compute), latents

    @jax.jit
    def call(params: Params, text: TextKeys, latents: Latents) -> Latents:
        numbers = jnp.arange(frames)[None]
        rope = rotation(
            grid_positions(numbers, jnp.zeros_like(numbers), rows, cols),
            dit.head_dim,
            dit.shot_phase,
        )
        # Any level of noise: time does not depend on it.
        timesteps = jnp.full((1, 1), TRAIN_STEPS / 2)
        # The peer has no causal student: a dense pass over a whole shot is what both can do.
        return apply_dense(params, dit, latents, timesteps, rope, text, compute=compute).velocity

    return functools.partial(call, *inputs(jax.random.key(0)))


def _our_decoder(shape: FilmShape) -> Callable[[], Any]:
    """Streaming, one latent frame at a time, as films are decoded."""
    config, dtype = shape.config.vae, shape.compute.dtype
    params = jax.jit(init_vae, static_argnums=1)(jax.random.key(0), config)
    array_shape = (1, shape.shot_latent_frames, *shape.grid, config.latent_channels)
    latents = jnp.split(jax.random.normal(jax.random.key(1), array_shape), array_shape[1], axis=1)

    def decode() -> list[Array]:
        pixels, past = programs.decode_start(params, config, dtype, latents[0])
        parts = [pixels]
        for latent in latents[1:]:
            pixels, past = programs.decode_continued(params, config, dtype, latent, past)
            parts.append(pixels)
        return parts

    return decode


Build = Callable[[Any], tuple[Any, dict[str, Any]]]
"""From the torch module: their network and its inputs, on torch's default device."""


def _their_transformer(diffusers: Any, shape: FilmShape) -> Build:
    dit = shape.config.dit
    array_shape = (1, dit.latent_channels, shape.shot_latent_frames, *shape.grid)

    def build(torch: Any) -> tuple[Any, dict[str, Any]]:
        network = diffusers.WanTransformer3DModel(
            patch_size=(1, *dit.patch),
            num_attention_heads=dit.heads,
            attention_head_dim=dit.head_dim,
            in_channels=dit.latent_channels,
            out_channels=dit.latent_channels,
            text_dim=dit.text_dim,
            freq_dim=dit.freq_dim,
            ffn_dim=dit.ffn_dim,
            num_layers=dit.layers,
        )
        return network, {
            "hidden_states": torch.randn(array_shape),
            "timestep": torch.full((1,), TRAIN_STEPS // 2),
            "encoder_hidden_states": torch.randn(1, dit.text_tokens, dit.text_dim),
        }

    return build


def _their_decoder(diffusers: Any, shape: FilmShape) -> Build:
    vae = shape.config.vae
    array_shape = (1, vae.latent_channels, shape.shot_latent_frames, *shape.grid)

    def build(torch: Any) -> tuple[Any, dict[str, Any]]:
        network = diffusers.AutoencoderKLWan(
            base_dim=vae.base_channels,
            z_dim=vae.latent_channels,
            dim_mult=list(vae.multipliers),
            num_res_blocks=vae.residual_blocks,
            # Spelt so in diffusers.
            temperal_downsample=list(vae.temporal_downsample),
            latents_mean=list(vae.latent_mean),
            latents_std=list(vae.latent_std),
            in_channels=vae.patch_channels,
            out_channels=vae.patch_channels,
            patch_size=None if vae.patch_size == 1 else vae.patch_size,
        )
        return network, {"z": torch.randn(array_shape)}

    return build


def _their_call(
    torch: Any, build: Build, shape: FilmShape, device: str, *, compiled: bool
) -> Callable[[], Any]:
    """One run of their network on a device, in our dtype."""
    with torch.device(device):
        network, inputs = build(torch)
    dtype = getattr(torch, shape.compute.dtype.__name__)
    network = network.to(dtype).eval().requires_grad_(requires_grad=False)
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    run = network.decode if "z" in inputs else network
    run = torch.compile(run) if compiled else run

    def call() -> Any:
        with torch.no_grad():
            return run(**inputs, return_dict=False)[0]

    return call


def _their_seconds(torch: Any, call: Callable[[], Any], device: str, repeats: int) -> float:
    """Median seconds of a call, after two that compile and warm up."""
    # CUDA runs behind Python: unsynchronised, only launches would be timed.
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    seconds = []
    for _ in range(2 + repeats):
        wait()
        began = time.perf_counter()
        call()
        wait()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[2:]))


_PARTS = {
    "transformer": (_our_transformer, _their_transformer),
    "decode": (_our_decoder, _their_decoder),
}
"""Ours and theirs of each compared part."""
