"""Everything that films: parameters, sizes, and how to compute with them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, Sharding

from shotstream_jax.model_config import ModelConfig
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.quantise import quantise_blocks
from shotstream_jax.rollout.approximate import Approximation
from shotstream_jax.sharding import shardings_for
from shotstream_jax.typing import Array, Float, Params

EncodeText = Callable[[Sequence[str]], Float[Array, "caption text_token text_dim"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks of one model, ready to film.

    Attributes:
      config: their sizes, windows and denoising steps.
      dit: parameters of the causal student.
      vae: parameters of the video autoencoder.
      encode_text: captions to embeddings, zero beyond each caption's length.
      compute: format and kernels of the transformer; its cache has the same format.
      decode_dtype: format in which the autoencoder decodes. It always encodes float32 arrays (in
        products of the platform's default precision): errors made there come back with every
        later shot.
      mesh: devices that parameters are on, if more than the default one.
      vae_apart: where the autoencoder is, if it has a device of its own: it decodes a chunk there
        while the transformer films the next.
      merged_passes: clean and context passes share a pass with the denoising step that follows:
        the same film up to rounding, in fewer reads of the weights.
      approximation: what is not computed exactly (see `approximated`).
    """

    config: ModelConfig
    dit: Params
    vae: Params
    encode_text: EncodeText
    compute: Compute = Compute()
    decode_dtype: Any = jnp.float32
    mesh: Mesh | None = None
    vae_apart: Sharding | None = None
    merged_passes: bool = False
    approximation: Approximation = Approximation()

    def __repr__(self) -> str:
        # Two lines of sizes, where the arrays themselves would fill a terminal.
        count = sum(leaf.size for leaf in jax.tree.leaves((self.dit, self.vae)))
        devices = 1 if self.mesh is None else self.mesh.size
        return (
            f"Networks({count / 1e6:,.1f}M parameters, {jnp.dtype(self.compute.dtype).name}, "
            f"{devices} device{'s' if devices > 1 else ''})"
        )


def approximated(networks: Networks, approximation: Approximation) -> Networks:
    """The same networks, filming approximately; weights go to 8 bits here, on their devices."""
    dit = networks.dit
    # Once, on opening a model: rounding at every use would read the wide weights that 8 bits are to
    # save.
    if approximation.int8_weights:
        shapes = jax.eval_shape(quantise_blocks, dit)
        where = None if networks.mesh is None else shardings_for(shapes, networks.mesh)
        # Placed by name: left to the compiler, a mesh's 8-bit kernels might end up whole on every
        # device.
        dit = jax.jit(quantise_blocks, out_shardings=where)(dit)
    return dataclasses.replace(networks, dit=dit, approximation=approximation)
