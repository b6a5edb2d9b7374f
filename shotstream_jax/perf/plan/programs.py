"""The programs that film, as shapes: what the camera jits, ready to be compiled for any target.

Nothing is allocated: parameters, caches and inputs are shapes with shardings.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from shotstream_jax.model_config import ModelConfig, RolloutConfig
from shotstream_jax.models.cache import ShotCache, TextKeys, init_cache
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.quantise import quantise_blocks
from shotstream_jax.models.text_encoder import (
    TextEncoderConfig,
    encode_tokens,
    init_text_encoder,
)
from shotstream_jax.models.vae import encode_images, init_vae
from shotstream_jax.models.vae_config import VAEConfig
from shotstream_jax.models.vae_stream import decode_first, decode_next
from shotstream_jax.rollout.approximate import Approximation
from shotstream_jax.rollout.chunk import (
    Context,
    commit_chunk,
    denoise_chunk,
    prepare_shot,
)
from shotstream_jax.rollout.shot import rollout_shot
from shotstream_jax.sharding import (
    cache_shardings,
    placed_shapes,
    replicated,
    shardings_for,
    split_rows,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One program, as shapes.

    Attributes:
      name: what it does.
      function: of the arguments, in order.
      arguments: trees of shapes with shardings, by what they are.
      donated: positions of arguments that it writes over.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    donated: tuple[int, ...] = ()

    def lower(self) -> Any:
        """The program before compilation."""
        jitted = jax.jit(self.function, donate_argnums=self.donated)
        return jitted.lower(*self.arguments.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmSizes:
    """All that decides the shapes of the programs that film.

    Attributes:
      dit: the transformer.
      vae: the autoencoder.
      text: the text encoder.
      rollout: windows and steps.
      compute: format and kernels.
      size: height and width of the film in pixels.
      chunks: of a shot.
      approximate: what is held in 8 bits.
    """

    dit: DiTConfig
    vae: VAEConfig
    text: TextEncoderConfig
    rollout: RolloutConfig
    compute: Compute
    size: tuple[int, int] = (480, 832)
    chunks: int = 7
    approximate: tuple[Approximation, ...] = ()

    def __post_init__(self) -> None:
        """Raises: ValueError: a size that does not divide into patches, or shots without chunks."""
        if self.chunks < 1:
            raise ValueError(f"A shot of {self.chunks} chunks; a shot has 1 or more.")
        self.config.latent_grid(self.size)

    @property
    def config(self) -> ModelConfig:
        """The networks and the rollout as one."""
        return ModelConfig(dit=self.dit, vae=self.vae, text=self.text, rollout=self.rollout)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a latent frame."""
        return self.config.latent_grid(self.size)

    @property
    def positions(self) -> int:
        """Places of a latent frame."""
        return self.grid[0] * self.grid[1]

    @property
    def frame_tokens(self) -> int:
        """Tokens of a latent frame."""
        return self.positions // (self.dit.patch[0] * self.dit.patch[1])

    @property
    def video_frames(self) -> int:
        """Video frames of a shot that begins with a cut."""
        return self.vae.video_frames(self.chunks * self.rollout.window.chunk)


def film_programs(sizes: FilmSizes, mesh: Mesh) -> dict[str, Program]:
    """Every program of a film by name, on a mesh.

    `chunk` and `commit` run for every chunk, `context` and `encode` at every cut, `decode` for
    every latent frame after a cut's first (`decode-first`), `text` for every caption; `shot` is
    all chunks of a shot in one program.
    """
    build = _Shapes(sizes, mesh)
    config, how = sizes.dit, {"compute": sizes.compute}
    steps = {"rollout": sizes.rollout, **how}
    chunk = {"dit": build.dit, "cache": build.cache, "chunk": build.number, "shot": build.number}
    dtype = sizes.compute.dtype
    programs = [
        Program(
            name="chunk",
            function=lambda dit, *rest: denoise_chunk(dit, config, *rest, **steps),
            arguments={**chunk, "noise": build.noise},
        ),
        Program(
            name="commit",
            function=lambda dit, *rest: commit_chunk(dit, config, *rest, **how),
            arguments={**chunk, "latents": build.latents},
            donated=(1,),
        ),
        Program(
            name="context",
            function=lambda dit, *rest: prepare_shot(dit, config, *rest, **how),
            arguments={
                "dit": build.dit,
                "cache": build.cache,
                "context": build.context,
                "caption": build.caption,
            },
            donated=(1,),
        ),
        Program(
            name="shot",
            function=lambda dit, *rest: rollout_shot(dit, config, *rest, **steps),
            arguments={
                "dit": build.dit,
                "cache": build.cache,
                "shot": build.number,
                "noise": build.shot_noise,
            },
        ),
        Program(
            name="decode-first",
            function=lambda vae, frame: decode_first(vae, sizes.vae, frame, **build.decoding),
            arguments={"vae": build.vae, "latents": build.split_frame},
        ),
        Program(
            name="decode",
            function=lambda vae, past, frame: decode_next(
                vae, sizes.vae, past, frame, **build.decoding
            ),
            arguments={"vae": build.vae, "past": build.decoder_cache, "latents": build.split_frame},
            donated=(1,),
        ),
        Program(
            name="encode",
            function=lambda vae, image: encode_images(vae, sizes.vae, image, lowering="conv3d"),
            arguments={"vae": build.vae, "image": build.image},
        ),
        Program(
            name="text",
            function=lambda text, *rest: encode_tokens(text, sizes.text, *rest, dtype=dtype),
            arguments={"text": build.text, "ids": build.ids, "mask": build.mask},
        ),
    ]
    return {program.name: program for program in programs}


class _Shapes:
    """The arguments of the programs, as shapes on a mesh."""

    def __init__(self, sizes: FilmSizes, mesh: Mesh):
        self.sizes, self.mesh = sizes, mesh
        self.rows, self.cols = sizes.grid
        self.decoding = {"dtype": sizes.compute.dtype, "lowering": "conv3d"}

    @functools.cached_property
    def dit(self) -> Any:
        weights = self._weights(init_dit, self.sizes.dit)
        if "int8-weights" not in self.sizes.approximate:
            return weights
        shapes = jax.eval_shape(quantise_blocks, weights)
        return placed_shapes(shapes, shardings_for(shapes, self.mesh))

    @functools.cached_property
    def text(self) -> Any:
        return self._weights(init_text_encoder, self.sizes.text)

    @functools.cached_property
    def vae(self) -> Any:
        shapes = jax.eval_shape(lambda key: init_vae(key, self.sizes.vae), jax.random.key(0))
        return self._everywhere(shapes)

    @functools.cached_property
    def caption(self) -> TextKeys:
        return self._captions(1)

    @functools.cached_property
    def cache(self) -> ShotCache:
        sizes = self.sizes
        shapes = jax.eval_shape(
            lambda text: init_cache(
                sizes.dit,
                sizes.rollout.window,
                text,
                sizes.frame_tokens,
                sizes.compute.dtype,
                in_int8="int8-cache" in sizes.approximate,
            ),
            self.caption,
        )
        return placed_shapes(shapes, cache_shardings(shapes, self.mesh))

    @property
    def context(self) -> Context:
        frames = self.sizes.rollout.window.context
        latents, captions = self._latents(frames), self._captions(frames)
        shapes = jax.eval_shape(
            lambda latents, shots, text: Context(latents=latents, shots=shots, text=text),
            latents,
            self._array((1, frames), jnp.int32),
            captions,
        )
        placed = self._everywhere((shapes.latents, shapes.shots))
        return jax.tree.unflatten(jax.tree.structure(shapes), jax.tree.leaves((placed, captions)))

    @property
    def decoder_cache(self) -> Any:
        _, past = jax.eval_shape(
            lambda vae, frame: decode_first(vae, self.sizes.vae, frame, **self.decoding),
            self.vae,
            self.frame,
        )
        return placed_shapes(past, split_rows(past, self.mesh))

    @property
    def number(self) -> Any:
        return self._array((), jnp.int32)

    @property
    def latents(self) -> Any:
        return self._latents(self.sizes.rollout.window.chunk)

    @property
    def frame(self) -> Any:
        return self._latents(1)

    @property
    def split_frame(self) -> Any:
        return self._split_rows(self.frame.shape)

    @property
    def noise(self) -> Any:
        return self._array((len(self.sizes.rollout.steps), *self.latents.shape))

    @property
    def shot_noise(self) -> Any:
        return self._array((self.sizes.chunks, *self.noise.shape))

    @property
    def image(self) -> Any:
        return self._split_rows((1, 1, *self.sizes.size, 3))

    @property
    def ids(self) -> Any:
        return self._array((1, self.sizes.dit.text_tokens), jnp.int32)

    @property
    def mask(self) -> Any:
        return self._array((1, self.sizes.dit.text_tokens), jnp.bool_)

    def _latents(self, frames: int) -> Any:
        return self._array((1, frames, self.rows, self.cols, self.sizes.dit.latent_channels))

    def _captions(self, captions: int) -> TextKeys:
        dit = self.sizes.dit
        shape = (dit.layers, 1, captions, dit.text_tokens, dit.heads, dit.head_dim)
        array = jax.ShapeDtypeStruct(shape, self.sizes.compute.dtype)
        shapes = jax.eval_shape(lambda array: TextKeys(key=array, value=array), array)
        return placed_shapes(shapes, cache_shardings(shapes, self.mesh))

    def _weights(self, init: Callable[..., Any], config: Any) -> Any:
        shapes = jax.eval_shape(lambda key: init(key, config), jax.random.key(0))
        dtype = self.sizes.compute.dtype
        cast = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes)
        return placed_shapes(cast, shardings_for(cast, self.mesh))

    def _array(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=replicated(self.mesh))

    def _split_rows(self, shape: tuple[int, ...]) -> Any:
        frame = jax.ShapeDtypeStruct(shape, jnp.float32)
        return placed_shapes(frame, split_rows(frame, self.mesh))

    def _everywhere(self, shapes: Any) -> Any:
        return placed_shapes(shapes, replicated(self.mesh))
