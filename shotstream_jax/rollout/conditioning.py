"""What a shot is generated from, and the dense pass that shows it to a network.

The network sees clean context frames and noisy target frames side by side, context first. Every
context slot holds one frame and has a caption of its own; `text` lists those captions, then the
shot's own. A third shot after two others, and the first shot of a story, with 6 context slots:

                   context        target              context        target
    rotary shot    0 0 0 1 1 1    2 2 2               0 0 0 0 0 0    1 1 1
    caption of     0 0 0 1 1 1    2 2 2               0 0 0 0 0 0    0 0 0
    place in text  0 1 2 3 4 5    6 6 6               0 1 2 3 4 5    6 6 6

Captions belong to slots, not to shot numbers, so nothing here depends on how many shots a story
has. A first shot has a context of zeros and rotary shot 1: so the released weights learnt it.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from shotstream_jax.models.cache import TextKeys
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.models.dit import apply_dense, encode_captions
from shotstream_jax.models.rope import grid_positions, rotation
from shotstream_jax.pytree import pytree
from shotstream_jax.typing import Array, Bool, Float, Int, Key, Latents, Params, Text

FrameTimesteps = Float[Array, "batch #any_frame"]
"""Schedule time in [0, 1000]: one a sample, or one a frame, those of the context first."""

NegativeText = Float[Array, "#batch 1 text_token text_dim"]
"""An encoded negative prompt, one for all samples or one for each."""

# The public code numbers a shot one after its last context frame, and an empty context 0: the first
# shot and the second share number 1, in training as in filming.
FIRST_SHOT = 1
"""Rotary shot number of a shot that nothing came before."""


@pytree
class Conditioning:
    """Context frames, captions by context slot, and the rotary shot number of every frame.

    Attributes:
      context: clean latents of earlier shots, one frame a slot; zeros where there are none.
      context_shots: rotary shot number of each context frame.
      shot: rotary shot number of the target frames.
      text: encoded captions, one for each context slot and then the shot's own; or a single one
        that all frames read.
    """

    context: Latents
    context_shots: Int[Array, "batch frame"]
    shot: Int[Array, " batch"]
    text: Text

    @property
    def own_text(self) -> Text:
        """The shot's own caption, `[batch, 1, token, dim]`."""
        return self.text[:, -1:]

    def rotary_shots(self, frames: int) -> Int[Array, "batch any_frame"]:
        """Rotary shot numbers of the context frames and of `frames` target frames after them."""
        target = jnp.repeat(self.shot[:, None], frames, axis=1)
        return jnp.concatenate([self.context_shots, target], axis=1)

    def caption_index(self, frames: int) -> Int[Array, "batch any_frame"]:
        """Place in `text` of the caption of the context frames and of `frames` target frames."""
        batch, slots = self.context_shots.shape
        if self.text.shape[1] == 1:
            return jnp.zeros((batch, slots + frames), jnp.int32)
        # Frame i of the context reads caption i; all target frames read the one after those.
        places = jnp.minimum(jnp.arange(slots + frames), slots)
        return jnp.broadcast_to(places, (batch, slots + frames))


def shot_conditioning(
    context: Latents,
    context_shots: Int[Array, "batch frame"],
    shot: Int[Array, " batch"],
    text: Text,
) -> Conditioning:
    """Conditioning of shots by their place in the story; the first is rotated as the second is."""
    return Conditioning(
        context=context,
        context_shots=context_shots,
        shot=jnp.where(shot == 0, FIRST_SHOT, shot),
        text=text,
    )


@pytree
class Dropout:
    """Which samples are trained without their context, and which without their captions."""

    context: Bool[Array, " batch"]
    text: Bool[Array, " batch"]


def draw_dropout(
    samples: Key[Array, " batch"], *, context: float = 0.1, text: float = 0.1
) -> Dropout:
    """Draw both masks from each sample's key, independently, with the given probabilities.

    The defaults are those of classifier-free guidance training (Ho and Salimans, 2022: 0.1 to 0.2
    do best), for captions and context alike.
    """
    # Two draws, not one: guidance may lead away from captions alone or from captions and context,
    # and the network must know the branch that has neither.
    probabilities = jnp.asarray([context, text])
    masks = jax.vmap(lambda key: jax.random.bernoulli(key, probabilities))(samples)
    return Dropout(context=masks[:, 0], text=masks[:, 1])


def apply_dropout(
    conditioning: Conditioning,
    dropout: Dropout,
    *,
    unprompted: Float[Array, "#batch #caption text_token text_dim"] | None = None,
) -> Conditioning:
    """Take context and captions away from the samples that the masks name.

    Without its context a shot becomes the first of a story, read to its own caption alone:

                      context        target              context        target
        rotary shot   0 0 0 1 1 1    2 2 2      ->       0 0 0 0 0 0    1 1 1
        caption of    0 0 0 1 1 1    2 2 2      ->       2 2 2 2 2 2    2 2 2

    Without its captions it reads `unprompted` in their place, zeros by default; to train for
    guidance against a negative prompt, give that prompt.
    """
    first = dropout.context[:, None]
    text = jnp.where(first[..., None, None], conditioning.own_text, conditioning.text)
    # Text last: a sample that loses both must not get its own caption back in the slots.
    instead = jnp.zeros_like(text) if unprompted is None else unprompted
    return Conditioning(
        # Zeros of normalised latents, not an encoded black frame: so the public code trains it, and
        # films first shots.
        context=jnp.where(first[..., None, None, None], 0, conditioning.context),
        context_shots=jnp.where(first, 0, conditioning.context_shots),
        shot=jnp.where(dropout.context, FIRST_SHOT, conditioning.shot),
        text=jnp.where(dropout.text[:, None, None, None], instead, text),
    )


def negative_conditioning(
    conditioning: Conditioning, negative: NegativeText, *, history: bool = False
) -> Conditioning:
    """The conditioning that guidance leads away from: a negative prompt for all frames.

    With `history` the context is taken away too, as `apply_dropout` does, so that guidance
    strengthens both captions and context.
    """
    if history:
        every = jnp.ones(conditioning.shot.shape, bool)
        conditioning = apply_dropout(conditioning, Dropout(context=every, text=~every))
    # One caption for context and target, as in the public unconditional branch: a negative prompt
    # belongs to no shot.
    text = jnp.broadcast_to(negative, (conditioning.text.shape[0], *negative.shape[1:]))
    return dataclasses.replace(conditioning, text=text)


def predict_velocity(
    params: Params,
    config: DiTConfig,
    conditioning: Conditioning,
    x_t: Latents,
    timesteps: FrameTimesteps,
    *,
    text_keys: TextKeys | None = None,
    levels: Sequence[int] | None = None,
    compute: Compute = Compute(),
) -> Latents:
    """Velocity of noisy target frames that stand beside their clean context.

    Args:
      params: of the transformer.
      config: its sizes.
      conditioning: context frames and captions.
      x_t: noisy target frames.
      timesteps: one a sample goes for the context too, as in the released teacher.
      text_keys: cross-attention keys and values of `conditioning.text`, where a sampler computed
        them once for all its steps; without them captions are embedded here, under the caller's
        gradient.
      levels: as in `apply_dense`.
      compute: format and kernels.
    """
    slots, frames = conditioning.context.shape[1], x_t.shape[1]
    shots = conditioning.rotary_shots(frames)
    rows, cols = (size // cut for size, cut in zip(x_t.shape[2:4], config.patch, strict=True))
    # Without a gap between context and target, as the student's cache has them: a causal start
    # takes over the teacher's weights, so that both must stand at the same positions.
    numbers = jnp.broadcast_to(jnp.arange(slots + frames), shots.shape)
    if text_keys is None:
        text_keys = encode_captions(params, config, conditioning.text, compute)
    output = apply_dense(
        params,
        config,
        jnp.concatenate([conditioning.context.astype(x_t.dtype), x_t], axis=1),
        timesteps,
        rotation(grid_positions(numbers, shots, rows, cols), config.head_dim, config.shot_phase),
        text_keys,
        caption_index=conditioning.caption_index(frames),
        levels=levels,
        compute=compute,
    )
    # No loss is taken on the context's frames, so what the network says of them means nothing.
    return output.velocity[:, slots:]
