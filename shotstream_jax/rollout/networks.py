"""Everything that films: parameters, sizes, and how to compute with them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, Sharding

from shotstream_jax.models.compute import Compute
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.quantise import quantise_blocks
from shotstream_jax.models.vae_config import VAEConfig
from shotstream_jax.rollout.approximate import Approximation
from shotstream_jax.rollout.chunk import RolloutConfig
from shotstream_jax.sharding import replicated, shardings_for, split_rows
from shotstream_jax.typing import Array, Float, Params

EncodeText = Callable[[Sequence[str]], Float[Array, "caption text_token text_dim"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks of one model, ready to film.

    Attributes:
      dit: parameters of the causal student.
      dit_config: its sizes.
      vae: parameters of the video autoencoder.
      vae_config: its sizes.
      encode_text: captions to embeddings, zero beyond each caption's length.
      rollout: windows and denoising steps.
      compute: format and kernels of the transformer; its cache has the same format.
      decode_dtype: format in which the autoencoder decodes. It always encodes in float32: errors
        made there come back with every later shot.
      mesh: devices that parameters are on, if more than the default one.
      vae_apart: where the autoencoder is, if it has a device of its own: it decodes a chunk there
        while the transformer films the next.
      approximate: what is not computed exactly (see `approximated`).
    """

    dit: Params
    dit_config: DiTConfig
    vae: Params
    vae_config: VAEConfig
    encode_text: EncodeText
    rollout: RolloutConfig = RolloutConfig()
    compute: Compute = Compute()
    decode_dtype: Any = jnp.float32
    mesh: Mesh | None = None
    vae_apart: Sharding | None = None
    approximate: tuple[Approximation, ...] = ()

    def to_vae(self, x: Float[Array, "batch frame row col chan"]) -> Array:
        """Frames where the autoencoder reads them: its own device, or rows on all of them."""
        if self.vae_apart is not None:
            return jax.device_put(x, self.vae_apart)
        return x if self.mesh is None else jax.device_put(x, split_rows(x, self.mesh))

    def from_vae(self, x: Array) -> Array:
        """What the autoencoder made, where the transformer can read it."""
        return x if self.mesh is None else jax.device_put(x, replicated(self.mesh))

    def latent_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of latents for a film of `size` = (height, width) pixels.

        Raises:
          ValueError: a size that does not divide into patches of latents.
        """
        return film_grid(self.vae_config, self.dit_config, size)

    def frame_tokens(self, size: tuple[int, int]) -> int:
        """Tokens of one latent frame at a film size."""
        rows, cols = self.latent_grid(size)
        return (rows // self.dit_config.patch[0]) * (cols // self.dit_config.patch[1])


def approximated(networks: Networks, approximate: Sequence[Approximation]) -> Networks:
    """The same networks, filming approximately; weights go to 8 bits here, on their devices."""
    dit = networks.dit
    if "int8-weights" in approximate:
        shapes = jax.eval_shape(quantise_blocks, dit)
        where = None if networks.mesh is None else shardings_for(shapes, networks.mesh)
        dit = jax.jit(quantise_blocks, out_shardings=where)(dit)
    return dataclasses.replace(networks, dit=dit, approximate=tuple(sorted(set(approximate))))


def film_grid(vae: VAEConfig, dit: DiTConfig, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of latents for a film of `size` = (height, width) pixels.

    Raises:
      ValueError: a size that does not divide into patches of latents.
    """
    for name, pixels, patch in zip(("height", "width"), size, dit.patch, strict=True):
        unit = vae.spatial_stride * patch
        if pixels <= 0 or pixels % unit:
            nearest = max(1, round(pixels / unit)) * unit
            raise ValueError(
                f"A {name} of {pixels} pixels is not a multiple of {unit}; try {nearest}."
            )
    return vae.latent_grid(*size)
