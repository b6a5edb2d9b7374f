"""Layers that the diffusion transformer is made of, as Linen modules without state.

Statistics, modulation and residual sums are float32; matrix products run in `Compute.dtype`.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from shotstream_jax.models.compute import Compute
from shotstream_jax.models.rope import Rotation, rotate
from shotstream_jax.pytree import pytree
from shotstream_jax.typing import Array, Float

EPSILON = 1e-6

Stream = Float[Array, "batch frame patch dim"]
Heads = Float[Array, "batch token head head_dim"]


@pytree
class Modulation:
    """What the timestep does to one sublayer: `x + gate * layer(norm(x) * (1 + scale) + shift)`."""

    shift: Float[Array, "batch frame 1 dim"]
    scale: Float[Array, "batch frame 1 dim"]
    gate: Float[Array, "batch frame 1 dim"]


def normalise(x: Float[Array, "*axes dim"]) -> Float[Array, "*axes dim"]:
    """Layer norm without parameters, in float32."""
    x = x.astype(jnp.float32)
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + EPSILON)


def modulate(x: Stream, by: Modulation) -> Stream:
    """Normalise, then scale and shift each frame by its timestep."""
    return normalise(x) * (1 + by.scale) + by.shift


def sinusoid(timesteps: Float[Array, "*axes"], dim: int) -> Float[Array, "*axes dim"]:
    """Sinusoidal embedding of timesteps in [0, 1000]: all cosines, then all sines."""
    frequency = jnp.asarray(10000.0 ** (-np.arange(dim // 2) / (dim // 2)), jnp.float32)
    angle = timesteps[..., None].astype(jnp.float32) * frequency
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class RMSNorm(nn.Module):
    """Root-mean-square norm over all channels, with a learned scale."""

    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "*axes dim"]) -> Float[Array, "*axes dim"]:
        """Normalise in float32; the input's format comes back."""
        scale = self.param("scale", nn.initializers.ones, (self.dim,))
        wide = x.astype(jnp.float32)
        root = jnp.sqrt(jnp.square(wide).mean(axis=-1, keepdims=True) + EPSILON)
        return (wide / root * scale.astype(jnp.float32)).astype(x.dtype)


class AffineNorm(nn.Module):
    """Layer norm with a learned scale and bias."""

    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "*axes dim"]) -> Float[Array, "*axes dim"]:
        """Normalise, scale and shift; float32 comes back."""
        scale = self.param("scale", nn.initializers.ones, (self.dim,))
        bias = self.param("bias", nn.initializers.zeros, (self.dim,))
        return normalise(x) * scale.astype(jnp.float32) + bias.astype(jnp.float32)


class Attention(nn.Module):
    """The projections of an attention layer; the mixing itself is `attention.attend`."""

    dim: int
    heads: int
    compute: Compute

    def setup(self) -> None:
        """Name the projections."""

        def linear() -> nn.Dense:
            return nn.Dense(self.dim, dtype=self.compute.dtype)

        self.q, self.k, self.v, self.o = linear(), linear(), linear(), linear()
        self.norm_q, self.norm_k = RMSNorm(self.dim), RMSNorm(self.dim)

    def queries(self, x: Float[Array, "batch *tokens dim"]) -> Heads:
        """Normed queries; all token axes become one."""
        return self._split(self.norm_q(self.q(x)))

    def keys_values(self, x: Float[Array, "batch *tokens dim"]) -> tuple[Heads, Heads]:
        """Normed keys, and values; all token axes become one."""
        return self._split(self.norm_k(self.k(x))), self._split(self.v(x))

    def rotated(
        self, x: Float[Array, "batch *tokens dim"], angles: Rotation
    ) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values of self-attention, queries and keys rotated to position."""
        key, value = self.keys_values(x)
        return rotate(self.queries(x), angles), rotate(key, angles), value

    def output(self, mixed: Heads) -> Float[Array, "batch token dim"]:
        """Project mixed heads back into the residual stream."""
        return self.o(mixed.reshape(*mixed.shape[:2], self.dim))

    def _split(self, x: Float[Array, "batch *tokens dim"]) -> Heads:
        return x.reshape(x.shape[0], -1, self.heads, self.dim // self.heads)


class FeedForward(nn.Module):
    """Two linear layers around a tanh-approximated GELU."""

    dim: int
    hidden: int
    compute: Compute

    @nn.compact
    def __call__(self, x: Float[Array, "*axes dim"]) -> Float[Array, "*axes dim"]:
        """Widen, bend, narrow."""
        hidden = nn.Dense(self.hidden, dtype=self.compute.dtype, name="up")(x)
        hidden = nn.gelu(hidden, approximate=True)
        return nn.Dense(self.dim, dtype=self.compute.dtype, name="down")(hidden)
