"""A run that takes milliseconds: two networks that take turns at chasing a noisy target.

Run as a program it trains, and ends without a word at the step given, as if killed:

    toy_training.py FOLDER STEPS STEP_TO_DIE_AT
"""

import dataclasses
import os
import pathlib
import signal
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from shotstream_jax.train.engine.loop import train
from shotstream_jax.train.engine.optimizer import Objective, OptimizerConfig
from shotstream_jax.train.engine.stage import Stage, Training, Weights
from shotstream_jax.train.losses import LossAux

BATCH = 4


class Counting:
    """Batches that say which one they are; the ones named are not finite."""

    def __init__(self, bad=()):
        self.place, self.bad = 0, bad

    def __next__(self):
        place, self.place = self.place, self.place + 1
        x = np.random.default_rng(place).normal(size=(BATCH, 3)).astype(np.float32)
        return {"x": x * np.nan if place in self.bad else x, "place": np.full(BATCH, place)}

    def get_state(self):
        return {"place": self.place}

    def set_state(self, state):
        self.place = state["place"]


def chase(params, inputs):
    batch, carry = inputs.batch, inputs.carry
    noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(inputs.keys.per_sample)
    target = inputs.networks["fixed"]["goal"] + 0.1 * noise + 0.1 * carry
    error = jnp.square(params["kernel"] - target + batch["x"]).mean(axis=1)
    return error.mean(), LossAux(
        metrics={"place": batch["place"].mean().astype(jnp.float32)}, carry=0.5 * carry + noise
    )


def weights(value):
    tree = {"kernel": np.full(3, value, np.float32)}
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
    return Weights(shapes=shapes, load=lambda shardings: jax.device_put(tree, shardings))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyTraining(Training):
    """Settings of the toy.

    Attributes:
      optimizer: of both networks.
      bad: batches that are not finite.
      good_enough: largest distance from the goal that `finish` accepts.
    """

    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=0.05, schedule="cosine", ema=0.9)
    )
    bad: tuple[int, ...] = ()
    good_enough: float = 1e9

    def stage(self, mesh: Mesh) -> Stage:
        objective = Objective(loss=chase, optimizer=self.optimizer)
        goal = {"goal": np.ones(3, np.float32)}
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), goal)
        return Stage(
            objectives={"hare": objective, "hound": objective},
            weights={"hare": weights(0.0), "hound": weights(-1.0)},
            frozen={"fixed": Weights(shapes=shapes, load=lambda s: jax.device_put(goal, s))},
            network_for_step=lambda step: "hound" if step % 3 == 0 else "hare",
            batches=lambda: Counting(self.bad),
            carry=jax.ShapeDtypeStruct((BATCH, 3), jnp.float32),
            validation=lambda: self._validate,
            finish=self._finish,
        )

    def _validate(self, networks: Any, folder: pathlib.Path, step: int) -> dict[str, float]:
        (folder / f"{step}.txt").write_text("seen")
        return {"distance": distance(networks)}

    def _finish(self, networks: Any, folder: pathlib.Path) -> dict[str, float]:
        if distance(networks) > self.good_enough:
            raise ValueError(f"The distance {distance(networks):g} is too large.")
        folder.mkdir()
        np.savez(folder / "toy.npz", **{k: networks[k]["kernel"] for k in ("hare", "hound")})
        return {"distance": distance(networks)}


def distance(networks):
    return float(np.abs(networks["hare"]["kernel"] - networks["fixed"]["goal"]).mean())


def toy(folder, **settings):
    counts = {"steps": 12, "log_every": 2, "save_every": 4, "validate_every": 6, "patience": 3}
    return ToyTraining(output=pathlib.Path(folder), **{**counts, **settings})


def main() -> None:
    folder, steps, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

    def die(progress):
        if progress.step >= last:
            os.kill(os.getpid(), signal.SIGKILL)

    train(toy(folder, steps=steps, save_every=1), existing="resume", watch=die)


if __name__ == "__main__":
    main()
