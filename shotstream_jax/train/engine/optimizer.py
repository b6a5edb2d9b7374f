"""How one network's parameters move: clipped AdamW or Muon, the rate, and their running mean.

An update is counted only when it is made: networks that take turns have counts of their own, and a
skipped step moves neither the schedule nor the mean. Moments and means are float32, like the
parameters that they follow.
"""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from shotstream_jax.typing import Array, Float, Index, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW for one network, or Muon for its matrices. Everything that is trained decays.

    Muon orthogonalises what momentum has gathered, so that a matrix moves in all its directions at
    one rate; the small networks here that start from nothing learn in fewer steps with it.

    Source: Jordan et al., "Muon: an optimizer for hidden layers", 2024; `optax.contrib.muon`.

    Attributes:
      learning_rate: at its highest.
      muon: how many times the rate kernels move at by Muon; `None` moves everything by AdamW.
      schedule: whether it stays there after warming up, or falls along half a cosine.
      warmup: updates over which it rises; a shorter run does nothing but warm up.
      final: share of the rate that a cosine ends at.
      b1: decay of the mean gradient.
      b2: decay of the mean squared gradient.
      eps: added to the root of the mean square.
      weight_decay: share of a parameter that a rate of 1 would take away at each update.
      clip: largest norm of the whole gradient; `None` does not clip.
      ema: decay of the parameters' running mean; `None` keeps none.
    """

    learning_rate: float
    muon: float | None = None
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    final: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float | None = 1.0
    ema: float | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError: a number outside its range, with the range."""
        shares = {"b1": self.b1, "b2": self.b2, "ema": self.ema or 0.0}
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise ValueError(f"{name} {share:g} is not in [0, 1), as a decay must be.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate {self.learning_rate:g} is not a positive number.")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip {self.clip:g} is not positive; use None not to clip.")
        if self.warmup < 0 or not 0 <= self.final <= 1:
            raise ValueError(
                f"warmup {self.warmup} must be 0 or more updates, and final {self.final:g} a "
                "share in [0, 1]."
            )


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Gradients to directions: clip, scale, decay. The learning rate is left to the caller."""
    clip = optax.identity() if config.clip is None else optax.clip_by_global_norm(config.clip)
    if config.muon is not None:
        return optax.chain(clip, _muon(config, config.muon), optax.scale(-1.0))
    if config.b1:
        scale = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    else:
        # Adam without a mean gradient, which it would otherwise store as a copy of the last one.
        scale = optax.scale_by_rms(
            decay=config.b2, eps=config.eps, eps_in_sqrt=False, bias_correction=True
        )
    return optax.chain(clip, scale, optax.add_decayed_weights(config.weight_decay))


def _muon(config: OptimizerConfig, rate: float) -> optax.GradientTransformation:
    """Muon for kernels, Nesterov AdamW for everything else; steps, not directions."""
    return optax.contrib.muon(
        rate,
        adam_learning_rate=1.0,
        adam_b1=config.b1,
        adam_b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay / rate,
        adam_weight_decay=config.weight_decay,
        muon_weight_dimension_numbers=functools.partial(
            jax.tree_util.tree_map_with_path, _matrix_axes
        ),
    )


def _matrix_axes(path: tuple[Any, ...], leaf: Array) -> optax.contrib.MuonDimensionNumbers | None:
    """How a kernel is a matrix: outputs are its last axis; stacked layers are many matrices.

    The first and the last layer of a transformer are left to AdamW, as is usual. So is the text
    encoder: its attention is not scaled, and large kernels would settle early what it looks at.
    """
    names = [entry.key for entry in path]
    if names[-1] != "kernel" or {"patch_embedding", "head", "text"} & set(names):
        return None
    inputs = range(1 if "blocks" in names else 0, leaf.ndim - 1)
    return optax.contrib.MuonDimensionNumbers(tuple(inputs), (leaf.ndim - 1,))


def learning_rate(config: OptimizerConfig, update: Index, horizon: int) -> Float[Array, ""]:
    """Rate of update number `update`, from 0, in a run of `horizon` updates."""
    warmup = min(config.warmup, max(horizon - 1, 0))
    first = config.learning_rate / (warmup + 1)
    if config.schedule == "constant":
        schedule = optax.warmup_constant_schedule(first, config.learning_rate, warmup)
    else:
        schedule = optax.warmup_cosine_decay_schedule(
            first,
            config.learning_rate,
            warmup,
            decay_steps=max(horizon, 1),
            end_value=config.final * config.learning_rate,
        )
    return jnp.asarray(schedule(update), jnp.float32)


def follow(mean: PyTree[Any], params: PyTree[Any], update: Index, decay: float) -> PyTree[Any]:
    """Move the running mean towards the parameters that update number `update` made.

    Early on it forgets faster, `(1 + update) / (10 + update)`: a random start is soon gone.
    """
    keep = jnp.minimum(decay, (1 + update) / (10 + update))
    return jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, mean, params)
