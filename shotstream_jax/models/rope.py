"""Shot-aware rotary position embedding: positions are data.

Every token carries four integers: its latent frame, patch row, patch column and shot. A head's
channel pairs are shared out among time, rows and columns; the shot adds one constant phase to all
temporal pairs. Context frames, chunks and cuts differ in their numbers only.

    pair angle (time)  frame * 10000^(-2j / time_channels) + shot * phase
    pair angle (row)   row   * 10000^(-2j / row_channels)          (columns likewise)

Angles are tabulated on the host in float64 and passed on as float32 cosines and sines.

Source: the paper's RoPE jump between shots; public ShotStream repository, wan/modules/model.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from shotstream_jax.pytree import pytree
from shotstream_jax.typing import Array, Float, Int

MAX_POSITION = 1024
"""Positions along any axis, as tabulated by Wan2.1; no shot with its context has more frames."""

# The base of the RoPE paper, which Wan2.1 keeps for all three axes.
_BASE = 10000.0


@pytree
class TokenPositions:
    """Integer coordinates of tokens.

    Attributes:
      frame: latent frame; context frames come first, a shot's own frames after them.
      row: patch row.
      col: patch column.
      shot: shot number for the rotation alone (captions are routed by an index of their own).
    """

    frame: Int[Array, "batch token"]
    row: Int[Array, "batch token"]
    col: Int[Array, "batch token"]
    shot: Int[Array, "batch token"]


@pytree
class Rotation:
    """Cosine and sine of every token's angle, one a channel pair, shared by all heads."""

    cos: Float[Array, "batch token pair"]
    sin: Float[Array, "batch token pair"]


def grid_positions(
    frames: Int[Array, "batch frame"], shots: Int[Array, "batch frame"], rows: int, cols: int
) -> TokenPositions:
    """Positions of all patches of some frames: frame-major, then row, then column."""
    batch, count = frames.shape
    row, col = np.divmod(np.arange(rows * cols, dtype=np.int32), cols)

    def of_frame(values: Int[Array, "batch frame"]) -> Int[Array, "batch token"]:
        return jnp.repeat(values, rows * cols, axis=1)

    def of_patch(values: Int[np.ndarray, " patch"]) -> Int[Array, "batch token"]:
        return jnp.broadcast_to(np.tile(values, count), (batch, count * rows * cols))

    return TokenPositions(
        frame=of_frame(frames), row=of_patch(row), col=of_patch(col), shot=of_frame(shots)
    )


def rotation(positions: TokenPositions, head_dim: int, shot_phase: float) -> Rotation:
    """Rotation of tokens from the tables. Positions must lie in [0, MAX_POSITION).

    `shot_phase` is added to every temporal angle for each shot number, in radians.
    """
    time, row, col = axis_pairs(head_dim)
    time_cos, time_sin = _lookup(positions.frame, time)
    # The paper's jump between shots: one constant for all temporal frequencies, so frames of
    # different shots are told apart at every scale, and frames of one shot keep their distances.
    phase = jnp.float32(shot_phase) * positions.shot[..., None]
    cos, sin = jnp.cos(phase), jnp.sin(phase)
    # cos(a + b) and sin(a + b): the tabulated angle stays exact to float32's last bit, where a
    # float32 sum of angles in the hundreds would lose it.
    time_cos, time_sin = time_cos * cos - time_sin * sin, time_sin * cos + time_cos * sin
    row_cos, row_sin = _lookup(positions.row, row)
    col_cos, col_sin = _lookup(positions.col, col)
    return Rotation(
        cos=jnp.concatenate([time_cos, row_cos, col_cos], axis=-1),
        sin=jnp.concatenate([time_sin, row_sin, col_sin], axis=-1),
    )


def rotate(
    x: Float[Array, "batch token head head_dim"], rope: Rotation
) -> Float[Array, "batch token head head_dim"]:
    """Rotate channel pairs (2j, 2j + 1) by their angles, in float32."""
    # Neighbours form a pair (the weights are Wan2.1's complex numbers), not the two halves of a
    # head as in LLaMA. bfloat16 products would blur the high frequencies.
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    even, odd = pairs[..., 0], pairs[..., 1]
    cos, sin = rope.cos[:, :, None, :], rope.sin[:, :, None, :]
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)


def rotate_keys_in_time(
    keys: Float[Array, "layer batch slot head head_dim"], frames: int, head_dim: int
) -> Float[Array, "layer batch slot head head_dim"]:
    """Move rotated keys by a number of latent frames, forwards or (below 0) back.

    Rotations of a pair add up, so the result is the key of the same token at the other number.
    """
    time, row, col = axis_pairs(head_dim)
    # In float64 on the host, as the tables are; rows and columns stay where they are.
    angle = np.append(frames * _frequencies(time), np.zeros(row + col))
    turn = Rotation(
        cos=jnp.asarray(np.cos(angle), jnp.float32)[None, None],
        sin=jnp.asarray(np.sin(angle), jnp.float32)[None, None],
    )
    return jax.vmap(rotate, in_axes=(0, None))(keys, turn)


def axis_pairs(head_dim: int) -> tuple[int, int, int]:
    """Channel pairs of a head for time, rows and columns (22, 21 and 21 of 64)."""
    pairs = head_dim // 2
    # Wan2.1's split: a third each for rows and columns, and the remainder goes to time.
    side = pairs // 3
    return pairs - 2 * side, side, side


def _frequencies(pairs: int) -> Float[np.ndarray, " pair"]:
    """Radians a position on an axis of `pairs` channel pairs, from 1 down to nearly 1 / 10000."""
    return _BASE ** (-np.arange(pairs) / pairs)


@functools.cache
def _table(pairs: int) -> tuple[Float[np.ndarray, "position pair"], ...]:
    """Float32 cosines and sines of every position on an axis of `pairs` channel pairs."""
    # Angles reach 1023 radians, of which float32 would keep about four decimals: float64 here.
    angle = np.arange(MAX_POSITION)[:, None] * _frequencies(pairs)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def _lookup(
    position: Int[Array, "batch token"], pairs: int
) -> tuple[Float[Array, "batch token pair"], Float[Array, "batch token pair"]]:
    cos, sin = _table(pairs)
    return jnp.asarray(cos)[position], jnp.asarray(sin)[position]
