"""Ways to film faster, or in less memory, that do not film quite the same: all off by default.

    no-clean-pass     later chunks see the keys of a chunk's last denoising step
    latent-context    later shots see latent frames as they were filmed, not decoded and encoded
    int8-cache        keys and values of the cache in 8 bits
    int8-weights      kernels of the transformer's blocks in 8 bits

A film made with one of them is called approximate.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

import jax

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.cache import ShotCache, write_chunk
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.models.dit import apply_cached
from shotstream_jax.rollout.chunk import (
    ShotNumber,
    after_step,
    chunk_input,
    denoise_from,
    levels_of,
)
from shotstream_jax.schedule import TRAIN_STEPS
from shotstream_jax.typing import Array, Float, Index, Latents, Params

ApproximationName = Literal["no-clean-pass", "latent-context", "int8-cache", "int8-weights"]

# Sorted: digests, badges and the facts of a film list them in this order.
_SETTINGS: Mapping[ApproximationName, Mapping[str, bool]] = {
    "int8-cache": {"int8_cache": True},
    "int8-weights": {"int8_weights": True},
    "latent-context": {"decoded_context": False},
    "no-clean-pass": {"clean_pass": False},
}
"""What each name sets in an `Approximation`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Approximation:
    """What filming computes exactly; the default is all of it.

    Attributes:
      clean_pass: later chunks see keys of finished latents, computed in a pass of its own.
      decoded_context: later shots see latents of decoded frames, encoded again.
      int8_cache: keys and values of the cache are held in 8 bits.
      int8_weights: kernels of the transformer's blocks are held in 8 bits.
    """

    # Exact by default. On the miniature, films without clean passes were 6 to 8 % faster in each of
    # three rounds; 8 bits saved memory and no time, because weights are widened where they are
    # used.
    clean_pass: bool = True
    decoded_context: bool = True
    int8_cache: bool = False
    int8_weights: bool = False

    @classmethod
    def named(cls, names: Iterable[ApproximationName]) -> "Approximation":
        """Approximations by the names that commands and films have for them.

        Raises:
          ValueError: an unknown name.
        """
        settings: dict[str, bool] = {}
        for name in names:
            if name not in _SETTINGS:
                raise ValueError(
                    f"Approximation {name!r} is unknown; there are {', '.join(_SETTINGS)}."
                )
            settings |= _SETTINGS[name]
        return cls(**settings)

    @property
    def names(self) -> tuple[ApproximationName, ...]:
        """Names of all that is not exact, sorted: as digests and badges have them."""
        return tuple(
            name
            for name, settings in _SETTINGS.items()
            if all(getattr(self, field) == value for field, value in settings.items())
        )


def denoise_keeping_keys(
    params: Params,
    config: DiTConfig,
    cache: ShotCache,
    chunk: Index,
    shot: ShotNumber,
    noise: Float[Array, "step batch frame row col chan"],
    *,
    rollout: RolloutConfig,
    compute: Compute = Compute(),
) -> tuple[Latents, ShotCache]:
    """`denoise_chunk`, and the cache with the keys and values of its last step (donate it)."""
    levels = levels_of(rollout, noise)
    # Four passes a chunk in place of five: the keys of the last step stand in for clean ones. They
    # are of latents at noise level 0.74 (the released list), not 0, which is what makes this
    # approximate.
    before, last = (jax.tree.map(lambda x, part=part: x[part], levels) for part in (slice(-1), -1))
    x_t = denoise_from(params, config, cache, chunk, shot, noise[0], before, compute)
    inputs = chunk_input(config, cache, chunk, shot, x_t, last[0] * TRAIN_STEPS)
    output = apply_cached(params, config, cache, inputs, compute=compute)
    return after_step(x_t, output, last), write_chunk(cache, output.kv, chunk)
