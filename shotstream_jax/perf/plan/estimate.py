"""What a film will take, before anything is traced or compiled: memory and time by arithmetic.

An estimate, and nothing but: it knows sizes, not programs. Activations and the compiler's
workspace come on top of the memory; the time is operations over an assumed rate.
`perf/bench/run.py` measures.
"""

import dataclasses
import functools
from collections.abc import Mapping

from shotstream_jax.model_config import ModelConfig
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.perf.plan.cost import decoder_past, dit_weights, text_weights, vae_weights
from shotstream_jax.perf.plan.film_cost import shot_flops
from shotstream_jax.story import Story, count_video_frames

_VALUE_BYTES = 2
"""Bytes of a weight or a cached value: bfloat16, in which accelerators film."""

_PIXEL_BYTES = 4 * 3
"""Bytes of a decoded pixel: three float32."""


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


def estimate(story: Story, config: ModelConfig, flops_per_second: float) -> Estimate:
    """Memory and time of a film on one device.

    Raises:
      ValueError: a rate that is not positive, or a film size that does not divide into patches.
    """
    if not flops_per_second > 0:
        raise ValueError(f"A rate of {flops_per_second} operations a second; give more than 0.")
    flops = []
    filmed = 0
    # Shots of one length cost the same, and most of a long story's are.
    cost = functools.cache(functools.partial(_flops, config, story.defaults.size))
    for index, shot in enumerate(story.resolved().shots):
        # A continued shot's chunks see those before it: they cost more than those after a cut.
        filmed = 0 if shot.transition == "cut" else filmed
        chunks = shot.chunks or story.defaults.chunks
        flops.append(cost((chunks, filmed, index == 0)))
        filmed += chunks
    return Estimate(
        memory=memory(story, config),
        shot_flops=tuple(flops),
        flops_per_second=flops_per_second,
    )


def _flops(config: ModelConfig, size: tuple[int, int], shot: tuple[int, int, bool]) -> int:
    chunks, filmed, is_first = shot
    return shot_flops(FilmShape(config=config, size=size, chunks=chunks), filmed, is_first=is_first)


def memory(story: Story, config: ModelConfig) -> dict[str, int]:
    """Bytes on the device while a story is filmed, by what they hold."""
    dit, window, size = config.dit, config.rollout.window, story.defaults.size
    rows, cols = config.latent_grid(size)
    # A key and a value of `dim` channels for every token in every layer.
    frame_values = 2 * dit.layers * dit.dim * config.frame_tokens(size)
    caption_values = 2 * dit.layers * dit.dim * dit.text_tokens
    # One caption for each context slot, and the shot's own.
    captions = min(len(story.shots), window.context + 1)
    # A later chunk shows more frames than one after a cut.
    frames = count_video_frames(window.chunk, "continue", config.vae.temporal_stride)
    values = {
        "generator": dit_weights(dit),
        "text encoder": text_weights(config.text),
        "autoencoder": vae_weights(config.vae),
        "context cache": frame_values * window.context,
        "local cache": frame_values * window.local,
        "caption cache": caption_values * captions,
        # 1.9 GB of the Wan decoder at 480 x 832, more than its transformer's context cache.
        "decoder cache": decoder_past(config.vae, rows * cols),
    }
    held = {name: count * _VALUE_BYTES for name, count in values.items()}
    return {**held, "frames of a chunk": frames * size[0] * size[1] * _PIXEL_BYTES}
