"""Optimizer of one network: clipped AdamW or Muon, learning-rate schedule, EMA of the parameters.

Schedule and EMA count the network's own updates: networks that train alternately have a count each,
and a skipped step advances neither. Optimizer state and EMA are float32, like the parameters.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from shotstream_jax.train.losses import Loss
from shotstream_jax.typing import Array, Float, Index, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW for one network, or Muon for its matrices. Everything that is trained decays.

    Muon orthogonalises what momentum has gathered, so that a matrix moves in all its directions at
    one rate; the small networks here that start from nothing learn in fewer steps with it.

    Source: Jordan et al., "Muon: an optimizer for hidden layers", 2024; `optax.contrib.muon`.

    Attributes:
      learning_rate: peak learning rate.
      muon: learning rate of kernels under Muon, as a multiple of `learning_rate`; `None` trains
        everything with AdamW.
      schedule: after warm-up, constant or half a cosine.
      warmup: updates of linear warm-up; a shorter run is all warm-up.
      final: learning rate at the end of a cosine, as a fraction of the peak.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      weight_decay: decoupled weight decay, multiplied by the learning rate.
      clip: largest global norm of the gradient; `None` does not clip.
      ema: decay of the parameters' exponential moving average; `None` keeps none.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """How one network is trained.

    Attributes:
      loss: what to minimise.
      optimizer: how to move.
      accumulate: microbatches that a batch is split into.
      trainable: of a tree of parameters, which leaves are trained; `None` is all.
    """

    loss: Loss
    optimizer: OptimizerConfig
    accumulate: int = 1
    trainable: Callable[[Any], PyTree[bool]] | None = None

    def transformation(self) -> optax.GradientTransformation:
        """The optimizer, without state for leaves that are not trained."""
        whole = make_optimizer(self.optimizer)
        return whole if self.trainable is None else optax.masked(whole, self.trainable)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Gradients to update directions: clip, precondition, decay; not yet times the learning rate.

    The learning rate is applied by the caller, because it depends on the count of updates that were
    made, and Optax's own count would also advance on steps that are skipped.
    """
    # Clipped first: Adam's moments must not see a spike at full size, since they remember it for
    # 1 / (1 - b2) updates.
    clip = optax.identity() if config.clip is None else optax.clip_by_global_norm(config.clip)
    if config.muon is not None:
        # Optax's muon returns steps to add; the caller subtracts.
        return optax.chain(clip, _muon(config, config.muon), optax.scale(-1.0))
    if config.b1:
        scale = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    else:
        # With b1 = 0 (the reference trains with it) Adam's first moment is the gradient itself;
        # RMSProp with bias correction is the same update and stores one tree less.
        scale = optax.scale_by_rms(
            decay=config.b2, eps=config.eps, eps_in_sqrt=False, bias_correction=True
        )
    return optax.chain(clip, scale, optax.add_decayed_weights(config.weight_decay))


def _muon(config: OptimizerConfig, rate: float) -> optax.GradientTransformation:
    """Muon for kernels, Nesterov AdamW for everything else; returns steps to add."""
    # The caller multiplies everything by the learning rate, so rates here are relative to it:
    # `rate` for kernels, 1 for the rest. Muon multiplies its decay by its own rate, which is
    # divided out: everything decays alike.
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
    """The axes of a kernel that make a matrix: the last one is outputs, `blocks` stacks matrices.

    The first and last layer of a transformer are left to AdamW, as Jordan et al. do. So is the text
    encoder: its attention logits are not scaled by 1/sqrt(head_dim), and kernels of the size that
    Muon gives them would saturate its softmax early.
    """
    names = [entry.key for entry in path]
    if names[-1] != "kernel" or {"patch_embedding", "head", "text"} & set(names):
        return None
    inputs = range(1 if "blocks" in names else 0, leaf.ndim - 1)
    return optax.contrib.MuonDimensionNumbers(tuple(inputs), (leaf.ndim - 1,))


def learning_rate(config: OptimizerConfig, update: Index, total_updates: int) -> Float[Array, ""]:
    """Learning rate of the network's update number `update`, from 0, of `total_updates`."""
    # Optax refuses a cosine without an update after the warm-up.
    warmup = min(config.warmup, max(total_updates - 1, 0))
    # The first of `warmup` updates moves too: from 0 it would be a step that trains nothing.
    first = config.learning_rate / (warmup + 1)
    if config.schedule == "constant":
        schedule = optax.warmup_constant_schedule(first, config.learning_rate, warmup)
    else:
        schedule = optax.warmup_cosine_decay_schedule(
            first,
            config.learning_rate,
            warmup,
            decay_steps=max(total_updates, 1),
            end_value=config.final * config.learning_rate,
        )
    return jnp.asarray(schedule(update), jnp.float32)


def ema_update(mean: PyTree[Any], params: PyTree[Any], update: Index, decay: float) -> PyTree[Any]:
    """EMA of the parameters after update number `update`, from 0: `d * mean + (1 - d) * params`.

    The decay warms up, `d = min(decay, (1 + update) / (10 + update))`, as in TensorFlow's
    `ExponentialMovingAverage(num_updates=)`. At a fixed 0.999 the initial parameters, which are
    random, would still weigh e^-1 after 1000 updates.
    """
    keep = jnp.minimum(decay, (1 + update) / (10 + update))
    return jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, mean, params)
