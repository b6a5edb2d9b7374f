"""Whether a film fits the memory that is here, and the largest size that would.

An estimate that errs on the side of filming: `estimate.memory` and the two largest intermediate
arrays of a film, no fragmentation and nothing of the compiler's. What it refuses cannot work.
"""

import dataclasses
import os
import pathlib

from shotstream_jax.model_config import ModelConfig
from shotstream_jax.perf.plan.estimate import memory
from shotstream_jax.sharding import Device
from shotstream_jax.story import Problem, Story, StoryFile, overridden

_FLOAT32 = 4

# Scores and their softmax; a decoder layer's input, output and padded input.
_SCORE_COPIES, _DECODER_COPIES = 2, 3

_CGROUP = pathlib.Path("/sys/fs/cgroup/memory.max")


def device_memory(device: Device) -> int | None:
    """Bytes that a device may hold: its own memory, or this machine's; `None` if unknown."""
    if device.platform != "cpu":
        # Not every backend counts its memory.
        return (device.memory_stats() or {}).get("bytes_limit")
    try:
        host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    try:
        # A container may be given less than the machine has.
        return min(host, int(_CGROUP.read_text(encoding="utf-8")))
    except (ValueError, OSError):
        return host


def film_bytes(story: Story, config: ModelConfig, platform: str) -> int:
    """Bytes on the device while a story is filmed, the largest intermediate arrays included."""
    window, (height, width) = config.rollout.window, story.defaults.size
    held = sum(memory(story, config).values())
    # A frame at full size in the channels of the decoder's last layers, for each frame of a latent.
    decoder = config.vae.temporal_stride * height * width * config.vae.base_channels
    largest = _DECODER_COPIES * decoder * _FLOAT32
    if platform == "cpu":
        # Films in float32, where `memory` counts bfloat16; accelerators never write scores down.
        held *= 2
        tokens = config.frame_tokens(story.defaults.size)
        keys = (window.context + window.local) * tokens
        scores = config.dit.heads * window.chunk * tokens * keys
        largest = max(largest, _SCORE_COPIES * scores * _FLOAT32)
    return held + largest


def largest_size(
    story: Story, config: ModelConfig, room: int, platform: str
) -> tuple[int, int] | None:
    """The largest size of about the same shape that fits into `room` bytes; `None` if none does."""
    height, width = story.defaults.size
    # Only the first captions count, and every size is another story to be validated.
    story = dataclasses.replace(story, shots=story.shots[: config.rollout.window.context + 1])
    unit = config.vae.spatial_stride * max(config.dit.patch)
    # Sizes of stories are multiples of 16.
    unit = max(unit, 16)
    for rows in range(height // unit, 0, -1):
        size = (rows * unit, max(1, round(rows * width / height)) * unit)
        if film_bytes(overridden(story, size=size), config, platform) <= room:
            return size
    return None


def fit_problem(
    file: StoryFile, config: ModelConfig, room: int | None, platform: str
) -> Problem | None:
    """What is wrong with the size of a film for a device of `room` bytes; `None` if it fits.

    Raises:
      ValueError: a size that does not divide into patches.
    """
    needed = film_bytes(file.story, config, platform)
    if room is None or needed <= room:
        return None
    field = ("defaults", "size")
    (height, width), size = (
        file.story.defaults.size,
        largest_size(file.story, config, room, platform),
    )
    advice = (
        f"{size[0]} x {size[1]} would fit (--size {size[0]} {size[1]})"
        if size
        else "no size would: this model needs a larger device"
    )
    message = (
        f"{height} x {width} takes about {needed / 1e9:.1f} GB and this {platform} has "
        f"{room / 1e9:.1f} GB; {advice}"
    )
    return Problem(field, message, file.places.of(field))
