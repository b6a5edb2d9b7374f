"""What a shot is made from in training, and the dense pass that shows it to a network.

A network sees context frames and target frames side by side, context first. Every frame carries
two numbers that are easily taken for one: the shot that the rotation names, and the caption that
the frame reads. A third shot after two others, and the first shot of a film:

              context        target              context        target
    shots     0 0 0 1 1 1    2 2 2               0 0 0 0 0 0    1 1 1
    captions  0 0 0 1 1 1    2 2 2               0 0 0 0 0 0    0 0 0

A first shot has a context of zeros and is rotated as shot 1: so the released weights learnt it.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from shotstream_jax.models.compute import Compute
from shotstream_jax.models.dit import apply_dense, encode_captions
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.rope import grid_positions, rotation
from shotstream_jax.pytree import pytree
from shotstream_jax.typing import Array, Bool, Float, Int, Key, Latents, Params, Text

FrameTimesteps = Float[Array, "batch #any_frame"]
"""Schedule time in [0, 1000]: one a sample, or one a frame, those of the context first."""

Negative = Float[Array, "#batch 1 text_token text_dim"]
"""An encoded negative prompt, one for all samples or one for each."""

FIRST_SHOT = 1
"""What the rotation calls the frames of a shot that nothing came before."""


@pytree
class Conditioning:
    """Earlier frames, captions, and the two numbers of every frame.

    Attributes:
      context: clean latents of earlier shots, zeros where there are none.
      context_shots: shot number of each context frame, for the rotation.
      context_captions: place in `text` of the caption that each context frame reads.
      shot: shot number of the target frames, for the rotation.
      caption: place in `text` of the caption that the target frames read.
      text: encoded captions.
    """

    context: Latents
    context_shots: Int[Array, "batch frame"]
    context_captions: Int[Array, "batch frame"]
    shot: Int[Array, " batch"]
    caption: Int[Array, " batch"]
    text: Text

    def shots(self, frames: int) -> Int[Array, "batch any_frame"]:
        """Shot number of the context frames and of `frames` target frames after them."""
        return _append(self.context_shots, self.shot, frames)

    def captions(self, frames: int) -> Int[Array, "batch any_frame"]:
        """Caption of the context frames and of `frames` target frames after them."""
        return _append(self.context_captions, self.caption, frames)

    @property
    def own_text(self) -> Text:
        """The one encoded caption that the target frames read."""
        return jax.vmap(lambda text, caption: text[caption][None])(self.text, self.caption)


@pytree
class Dropout:
    """Which samples go without their context, and which without their captions."""

    context: Bool[Array, " batch"]
    text: Bool[Array, " batch"]


def draw_dropout(
    samples: Key[Array, " batch"], *, context: float = 0.1, text: float = 0.1
) -> Dropout:
    """Draw the two from each sample's key, independently, with the given probabilities."""
    probabilities = jnp.asarray([context, text])
    masks = jax.vmap(lambda key: jax.random.bernoulli(key, probabilities))(samples)
    return Dropout(context=masks[:, 0], text=masks[:, 1])


def drop(
    given: Conditioning,
    dropout: Dropout,
    *,
    unprompted: Float[Array, "#batch #caption text_token text_dim"] | None = None,
) -> Conditioning:
    """Take context and captions away from the samples that the masks name.

    Without its context a shot becomes the first of a film, told of its own caption alone:

                  context        target              context        target
        shots     0 0 0 1 1 1    2 2 2      ->       0 0 0 0 0 0    1 1 1
        captions  0 0 0 1 1 1    2 2 2      ->       2 2 2 2 2 2    2 2 2

    Without its captions it reads `unprompted` in their place, zeros by default; to train for
    guidance against a negative prompt, that prompt belongs there.
    """
    first = dropout.context[:, None]
    context = jnp.where(first[..., None, None, None], 0, given.context)
    instead = jnp.zeros_like(given.text) if unprompted is None else unprompted
    return dataclasses.replace(
        given,
        context=context,
        context_shots=jnp.where(first, 0, given.context_shots),
        context_captions=jnp.where(first, given.caption[:, None], given.context_captions),
        shot=jnp.where(dropout.context, FIRST_SHOT, given.shot),
        text=jnp.where(dropout.text[:, None, None, None], instead, given.text),
    )


def without_prompt(
    given: Conditioning, negative: Negative, *, history: bool = False
) -> Conditioning:
    """What guidance leads away from: a negative prompt for all captions.

    With `history` the earlier shots are taken away too, as `drop` does, and whoever is led away
    from this holds on to both.
    """
    if history:
        every = jnp.ones(given.shot.shape, bool)
        given = drop(given, Dropout(context=every, text=~every))
    text = jnp.broadcast_to(negative, (given.text.shape[0], *negative.shape[1:]))
    return dataclasses.replace(given, text=text)


def predict_velocity(
    params: Params,
    config: DiTConfig,
    given: Conditioning,
    x_t: Latents,
    timesteps: FrameTimesteps,
    *,
    levels: Sequence[int] | None = None,
    compute: Compute = Compute(),
) -> Latents:
    """Velocity of noisy target frames that stand beside their clean context.

    One timestep a sample is told to the context too. `levels` are as in `apply_dense`. Captions
    are embedded here, under the caller's gradient.
    """
    context, frames = given.context.shape[1], x_t.shape[1]
    shots = given.shots(frames)
    rows, cols = (size // cut for size, cut in zip(x_t.shape[2:4], config.patch, strict=True))
    numbers = jnp.broadcast_to(jnp.arange(context + frames), shots.shape)
    proposal = apply_dense(
        params,
        config,
        jnp.concatenate([given.context.astype(x_t.dtype), x_t], axis=1),
        timesteps,
        rotation(grid_positions(numbers, shots, rows, cols), config.head_dim, config.shot_phase),
        encode_captions(params, config, given.text, compute),
        caption_index=given.captions(frames),
        levels=levels,
        compute=compute,
    )
    return proposal.velocity[:, context:]


def _append(
    context: Int[Array, "batch frame"], target: Int[Array, " batch"], frames: int
) -> Int[Array, "batch any_frame"]:
    return jnp.concatenate([context, jnp.repeat(target[:, None], frames, axis=1)], axis=1)
