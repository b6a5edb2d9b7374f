"""What a film will take, before anything is compiled: memory and time by arithmetic alone.

An estimate, and nothing but: it knows sizes, not programs. Activations and the compiler's
workspace come on top of the memory; the time is operations over a rate that somebody assumed.
`perf/bench/run.py` measures.
"""

import dataclasses
from collections.abc import Mapping

from shotstream_jax.models.cache import Window
from shotstream_jax.models.dit_config import WAN_1_3B, DiTConfig
from shotstream_jax.models.text_encoder import TextEncoderConfig
from shotstream_jax.models.vae_config import WAN_VAE, VAEConfig
from shotstream_jax.perf.plan.cost import (
    decode_flops,
    decoder_past,
    dit_flops,
    dit_weights,
    encode_flops,
    text_flops,
    text_weights,
    vae_weights,
)
from shotstream_jax.story import Story, count_video_frames

_PIXEL_BYTES = 4 * 3
"""Bytes of a decoded pixel: three float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineSizes:
    """All that an estimate knows of the networks and the rollout. Defaults are the release.

    Attributes:
      dit: the generator.
      vae: the video autoencoder.
      text: the text encoder.
      window: latent frames of a chunk, of the context, and of what a chunk may see.
      steps: denoising steps of a chunk.
      value_bytes: bytes of a weight or a cached value.
    """

    dit: DiTConfig = WAN_1_3B
    vae: VAEConfig = WAN_VAE
    text: TextEncoderConfig = dataclasses.field(default_factory=TextEncoderConfig)
    window: Window = dataclasses.field(default_factory=Window)
    steps: int = 4
    value_bytes: int = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a film will take.

    Attributes:
      memory: bytes on the device by what they hold, activations not among them.
      shot_flops: operations of each shot.
      flops_per_second: the rate that is assumed.
    """

    memory: Mapping[str, int]
    shot_flops: tuple[int, ...]
    flops_per_second: float

    @property
    def memory_bytes(self) -> int:
        """All of `memory`."""
        return sum(self.memory.values())

    @property
    def shot_seconds(self) -> tuple[float, ...]:
        """Time of each shot at the assumed rate."""
        return tuple(flops / self.flops_per_second for flops in self.shot_flops)

    @property
    def seconds(self) -> float:
        """Time of the film at the assumed rate."""
        return sum(self.shot_seconds)


def estimate(story: Story, sizes: EngineSizes, flops_per_second: float) -> Estimate:
    """Memory and time of a film on one device.

    Raises:
      ValueError: a rate that is not positive, or a film size that does not divide into patches.
    """
    if not flops_per_second > 0:
        raise ValueError(f"A rate of {flops_per_second} operations a second; give more than 0.")
    flops = []
    filmed = 0
    for index, shot in enumerate(story.resolved().shots):
        filmed = 0 if shot.transition == "cut" else filmed
        chunks = shot.chunks or story.defaults.chunks
        flops.append(shot_flops(sizes, story.defaults.size, filmed, chunks, is_first=index == 0))
        filmed += chunks
    return Estimate(
        memory=memory(story, sizes),
        shot_flops=tuple(flops),
        flops_per_second=flops_per_second,
    )


def memory(story: Story, sizes: EngineSizes) -> dict[str, int]:
    """Bytes on the device while a story is filmed, by what they hold."""
    dit, window = sizes.dit, sizes.window
    rows, cols = sizes.vae.latent_grid(*story.defaults.size)
    frame_values = 2 * dit.layers * dit.dim * _frame_tokens(sizes, rows, cols)
    caption_values = 2 * dit.layers * dit.dim * dit.text_tokens
    captions = min(len(story.shots), window.context + 1)
    frames = count_video_frames(window.chunk, "continue", sizes.vae.temporal_stride)
    height, width = story.defaults.size
    values = {
        "generator": dit_weights(dit),
        "text encoder": text_weights(sizes.text),
        "autoencoder": vae_weights(sizes.vae),
        "context cache": frame_values * window.context,
        "local cache": frame_values * window.local,
        "caption cache": caption_values * captions,
        "decoder cache": decoder_past(sizes.vae, rows * cols),
    }
    held = {name: count * sizes.value_bytes for name, count in values.items()}
    return {**held, "frames of a chunk": frames * height * width * _PIXEL_BYTES}


def shot_flops(
    sizes: EngineSizes, size: tuple[int, int], filmed: int, chunks: int, *, is_first: bool
) -> int:
    """Operations of a shot whose camera has `filmed` chunks behind it, a clean pass for each chunk.

    `size` is height and width in pixels.

    Raises:
      ValueError: a size that does not divide into patches.
    """
    dit, window = sizes.dit, sizes.window
    rows, cols = sizes.vae.latent_grid(*size)
    tokens = _frame_tokens(sizes, rows, cols)
    total = text_flops(sizes.text, dit.text_tokens)
    if filmed == 0:
        total += dit_flops(dit, window.context * tokens, window.context * tokens)
        if not is_first:
            total += window.context * encode_flops(sizes.vae, rows * cols)
    for chunk in range(filmed, filmed + chunks):
        seen = window.context + min((chunk + 1) * window.chunk, window.local)
        # One more pass than steps: the clean one, whose keys later chunks see.
        total += (sizes.steps + 1) * dit_flops(dit, window.chunk * tokens, seen * tokens)
        firsts = int(chunk == 0)
        total += firsts * decode_flops(sizes.vae, rows * cols, first=True)
        total += (window.chunk - firsts) * decode_flops(sizes.vae, rows * cols, first=False)
    return total


def _frame_tokens(sizes: EngineSizes, rows: int, cols: int) -> int:
    patch_rows, patch_cols = sizes.dit.patch
    if rows % patch_rows or cols % patch_cols:
        raise ValueError(
            f"Latents of {rows} x {cols} do not divide into patches of {patch_rows} x {patch_cols};"
            " change the size of the film."
        )
    return rows // patch_rows * (cols // patch_cols)
