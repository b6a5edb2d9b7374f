"""The programs that film (`rollout/programs.py`) with the shapes that they are called with.

Every function here is the object that the `Engine` calls, and its arguments are in the order in
which the engine passes them; nothing is allocated. The names:

    text             one caption to embeddings
    caption-keys     embeddings to keys and values of cross-attention
    encode           a video frame to a context frame
    context          the context pass
    chunk            all denoising steps of a chunk
    commit           the clean pass of a chunk
    context-chunk    `context` and `chunk` with merged passes
    commit-chunk     `commit` and `chunk` with merged passes
    chunk-keys       `chunk`, keeping the keys of its last step in place of a clean pass
    shot             all chunks of a shot in one program
    turn-back        a full cache moved back by one chunk
    decode-first     the first latent frame after a cut to pixels
    decode           any other latent frame to pixels
    video-first      pixels of `decode-first` to 8 bits
    video            pixels of `decode` to 8 bits
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from shotstream_jax.data.encode import encode_caption_tokens
from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.quantise import quantise_blocks
from shotstream_jax.models.text_encoder import init_text_encoder
from shotstream_jax.models.vae import init_vae
from shotstream_jax.models.vae_layers import default_conv_impl
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.rollout import programs
from shotstream_jax.rollout.chunk import Context
from shotstream_jax.sharding import (
    cache_shardings,
    placed_shapes,
    replicated,
    shardings_for,
    split_rows,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One jitted program and the shapes that it is called with.

    Attributes:
      name: what it does.
      function: jitted, with its own static and donated arguments.
      arguments: by what they are, in the order of the call: trees of shapes with shardings, and
        static values.
      settings: static values that are passed by name.
    """

    name: str
    function: Any
    arguments: Mapping[str, Any]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def arrays(self) -> dict[str, Any]:
        """Those arguments that are trees of arrays."""
        return {
            name: tree
            for name, tree in self.arguments.items()
            if all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree))
        }

    def lower(self) -> Any:
        """The program before compilation."""
        return self.function.lower(*self.arguments.values(), **self.settings)


def film_programs(shape: FilmShape, mesh: Mesh) -> dict[str, Program]:
    """Every program of a film by name, on a mesh."""
    config, build = shape.config, _Arguments(shape, mesh)
    how = {"compute": shape.compute}
    steps = {"rollout": config.rollout, **how}
    dit = {"dit": build.dit, "config": config.dit}
    vae = {"vae": build.vae, "config": config.vae}
    decode = {**vae, "dtype": shape.compute.dtype, "latents": build.split_frame}
    number, noise, caption = build.number, build.noise, build.caption
    cached = {**dit, "cache": build.cache}
    chunk = {**cached, "chunk": number, "shot": number}
    context = {"context": build.context, "caption": caption}
    conv = _conv_settings(mesh)
    text = {"text": build.text, "config": config.text, "ids": build.ids, "mask": build.mask}
    calls: tuple[tuple[str, Any, dict[str, Any], dict[str, Any]], ...] = (
        # In the order of a shot, as the lists of plans and benchmarks show them.
        ("text", encode_caption_tokens, text, {"dtype": shape.compute.dtype}),
        ("caption-keys", programs.project_captions, {**dit, "embeddings": build.embeddings}, how),
        ("encode", programs.encode_image, {**vae, "image": build.image}, conv),
        ("context", programs.prepare, {**cached, **context}, how),
        ("chunk", programs.denoise, {**chunk, "noise": noise}, steps),
        ("commit", programs.commit, {**chunk, "latents": build.latents}, how),
        (
            "context-chunk",
            programs.denoise_first,
            {**cached, **context, "shot": number, "noise": noise},
            steps,
        ),
        (
            "commit-chunk",
            programs.denoise_next,
            {**chunk, "latents": build.latents, "noise": noise},
            steps,
        ),
        ("chunk-keys", programs.denoise_and_keep, {**chunk, "noise": noise}, steps),
        ("shot", programs.denoise_shot, {**chunk, "noise": build.shot_noise}, steps),
        ("turn-back", programs.turn_back, {"cache": build.cache}, {"config": config.dit}),
        ("decode-first", programs.decode_start, decode, conv),
        ("decode", programs.decode_continued, {**decode, "past": build.decoder_cache}, conv),
        ("video-first", programs.to_video, {"pixels": build.pixels(begins=True)}, {}),
        ("video", programs.to_video, {"pixels": build.pixels(begins=False)}, {}),
    )
    return {
        name: Program(name=name, function=function, arguments=arguments, settings=settings)
        for name, function, arguments, settings in calls
    }


def filming(shape: FilmShape) -> tuple[str, ...]:
    """Names of the programs that run on the chip, shot after shot, when a story of cuts is filmed.

    Not `text`, which may be on the host and runs once a caption. Positions are those that stories
    have by default: turned back in shots longer than trained.
    """
    exact = shape.approximation
    if not exact.clean_pass:
        chunks = ("context", "chunk-keys")
    elif shape.merged_passes:
        chunks = ("context-chunk", "commit-chunk")
    else:
        chunks = ("context", "chunk", "commit")
    encode = ("encode",) if exact.decoded_context else ()
    # Chunks in the cache when the last one is filmed; without clean passes it is kept, too.
    # A clean pass is put off until a chunk follows it: the last chunk's keys are never there.
    kept = shape.chunks - exact.clean_pass
    turn = ("turn-back",) if kept >= shape.config.rollout.shot_chunks else ()
    decode = ("decode-first", "decode", "video-first", "video")
    return ("caption-keys", *encode, *chunks, *turn, *decode)


def _conv_settings(mesh: Mesh) -> dict[str, Any]:
    """The convolutions of another platform than this machine's have to be named."""
    platform = mesh.devices.flat[0].platform
    if platform == jax.default_backend():
        return {}
    return {"conv_impl": default_conv_impl(platform)}


class _Arguments:
    """The arguments of the programs, as shapes on a mesh."""

    def __init__(self, shape: FilmShape, mesh: Mesh):
        self.shape, self.mesh = shape, mesh
        self.config, self.compute = shape.config, shape.compute

    @functools.cached_property
    def dit(self) -> Any:
        weights = self._weights(init_dit, self.config.dit)
        if not self.shape.approximation.int8_weights:
            return weights
        shapes = jax.eval_shape(quantise_blocks, weights)
        return placed_shapes(shapes, shardings_for(shapes, self.mesh))

    @functools.cached_property
    def text(self) -> Any:
        return self._weights(init_text_encoder, self.config.text)

    @functools.cached_property
    def vae(self) -> Any:
        # Float32 and whole on every device, as `open_model` loads it.
        shapes = jax.eval_shape(lambda key: init_vae(key, self.config.vae), jax.random.key(0))
        return placed_shapes(shapes, replicated(self.mesh))

    @property
    def embeddings(self) -> Any:
        dit = self.config.dit
        return self._array((1, 1, dit.text_tokens, dit.text_dim), self.compute.dtype)

    @functools.cached_property
    def caption(self) -> Any:
        keys = programs.project_captions.eval_shape(
            self.dit, self.config.dit, self.embeddings, compute=self.compute
        )
        return placed_shapes(keys, cache_shardings(keys, self.mesh))

    @functools.cached_property
    def cache(self) -> Any:
        cache = programs.new_cache.eval_shape(
            self.config.dit,
            self.config.rollout.window,
            self.caption,
            self.shape.frame_tokens,
            self.compute.dtype,
            self.mesh,
            self.shape.approximation.int8_cache,
        )
        return placed_shapes(cache, cache_shardings(cache, self.mesh))

    @functools.cached_property
    def context(self) -> Any:
        slots = self.config.rollout.window.context
        text = jax.eval_shape(
            lambda *captions: jax.tree.map(lambda *keys: jnp.concatenate(keys, axis=2), *captions),
            *([self.caption] * slots),
        )
        shapes = jax.eval_shape(
            lambda latents, shots, text: Context(latents=latents, shots=shots, text=text),
            self._latents(slots),
            self._array((1, slots), jnp.int32),
            text,
        )
        leaves = (*[replicated(self.mesh)] * 2, *jax.tree.leaves(cache_shardings(text, self.mesh)))
        return placed_shapes(shapes, jax.tree.unflatten(jax.tree.structure(shapes), leaves))

    @functools.cached_property
    def decoder_cache(self) -> Any:
        _, past = self._decoded()
        return placed_shapes(past, split_rows(past, self.mesh))

    def pixels(self, *, begins: bool) -> Any:
        """What the first latent frame after a cut, or a later one, is decoded to."""
        shown, _ = self._decoded() if begins else self._decoded(self.decoder_cache)
        return placed_shapes(shown, split_rows(shown, self.mesh))

    @property
    def number(self) -> Any:
        # The engine passes a Python int, which does not promote what it is added to.
        return jax.ShapeDtypeStruct((), jnp.int32, weak_type=True, sharding=replicated(self.mesh))

    @property
    def latents(self) -> Any:
        return self._latents(self.config.rollout.window.chunk)

    @property
    def split_frame(self) -> Any:
        return self._split_rows(self._latents(1).shape)

    @property
    def noise(self) -> Any:
        return self._array((len(self.config.rollout.steps), *self.latents.shape))

    @property
    def shot_noise(self) -> Any:
        return self._array((self.shape.chunks, *self.noise.shape))

    @property
    def image(self) -> Any:
        return self._split_rows((1, 1, *self.shape.size, 3))

    @property
    def ids(self) -> Any:
        return self._array((1, self.config.dit.text_tokens), jnp.int32)

    @property
    def mask(self) -> Any:
        return self._array((1, self.config.dit.text_tokens), jnp.bool_)

    def _decoded(self, *past: Any) -> tuple[Any, Any]:
        decode = programs.decode_continued if past else programs.decode_start
        inputs = self.vae, self.config.vae, self.compute.dtype, self.split_frame, *past
        return decode.eval_shape(*inputs)

    def _latents(self, frames: int) -> Any:
        return self._array((1, frames, *self.shape.grid, self.config.dit.latent_channels))

    def _weights(self, init: Callable[..., Any], config: Any) -> Any:
        shapes = jax.eval_shape(lambda key: init(key, config), jax.random.key(0))
        dtype = self.compute.dtype
        # Initialisers draw float32; weights are loaded in the format that computes.
        cast = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes)
        return placed_shapes(cast, shardings_for(cast, self.mesh))

    def _array(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=replicated(self.mesh))

    def _split_rows(self, shape: tuple[int, ...]) -> Any:
        frame = jax.ShapeDtypeStruct(shape, jnp.float32)
        return placed_shapes(frame, split_rows(frame, self.mesh))
