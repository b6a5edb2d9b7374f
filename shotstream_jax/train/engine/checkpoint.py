"""Checkpoints of a run: the training state, and the facts that belong to it, step by step.

    checkpoints/000200/state/   arrays by name, such as `params.vae.encoder.conv_in.kernel`
    checkpoints/000200/facts/   JSON: position in the data, settings, a digest of the arrays

Orbax writes in the background and renames what is complete, so that a killed process leaves the
checkpoint before. Arrays that are read are compared with the digest; a damaged checkpoint is set
aside, and the one before it is used.
"""

import contextlib
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from shotstream_jax.sharding import placed_shapes
from shotstream_jax.train.engine.state import TrainState
from shotstream_jax.typing import Array, PyTree

FOLDER, DAMAGED = "checkpoints", "damaged"

Facts = dict[str, Any]
"""JSON values by name."""

_FORMAT = 2
"""Written into the facts, where format 1 wrote nothing."""

_FIELDS_OF_FORMAT_1 = {"opt_state": "moments", "ema_params": "means"}
"""Fields of the state whose arrays had other names in format 1."""

_LOG = logging.getLogger(__name__)


class Store:
    """The checkpoints of one run; the newest `keep` of them stay."""

    def __init__(self, folder: pathlib.Path, keep: int) -> None:
        self._folder = (folder / FOLDER).absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                step_format_fixed_length=6,
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            ),
        )

    def save(self, state: TrainState, facts: Facts) -> None:
        """Begin to write a checkpoint; the state may be donated as soon as this returns.

        Raises:
          OSError: this checkpoint, or the one before, cannot be written.
        """
        arrays, step = _by_name(state), int(state.step)
        if step in self._manager.all_steps():
            return
        facts = {**facts, "format": _FORMAT, "digest": int(_digest(arrays))}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(arrays), facts=ocp.args.JsonSave(facts)
        )
        with self._writing():
            self._manager.save(step, args=args, force=True)

    def restore(
        self, shapes: TrainState, shardings: TrainState, check: Callable[[Facts], None]
    ) -> tuple[TrainState, Facts] | None:
        """The newest undamaged state and its facts; `None` if there is no checkpoint.

        Args:
          shapes: of the state.
          shardings: of each of its leaves.
          check: called with the facts before any array is read; may raise to refuse them.

        Raises:
          ValueError: there are checkpoints, and all are damaged.
        """
        damaged: dict[int, Exception] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            # What a damaged file makes Orbax or TensorStore raise is not documented, so that any
            # exception counts. `check` stands outside: a run with other settings is not damaged.
            try:
                facts = self._facts(step)
            except Exception as error:  # noqa: BLE001
                damaged[step] = error
                continue
            check(facts)
            try:
                state = self._state(step, shapes, shardings, facts)
            except Exception as error:  # noqa: BLE001
                damaged[step] = error
                continue
            self._set_aside(damaged, step)
            return state, facts
        if damaged:
            step, error = damaged.popitem()
            raise ValueError(
                f"No checkpoint in {self._folder} is whole (step {step}: {_short(error)}); "
                "bring one back from a copy, or start again with --overwrite."
            )
        return None

    def wait(self) -> None:
        """Wait until everything is on the disk.

        Raises:
          OSError: it cannot be written.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait until everything is on the disk, and release the folder."""
        self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        # Orbax raises bare Exceptions from its writing threads, whatever the cause.
        try:
            yield
        except Exception as error:
            raise OSError(
                f"A checkpoint cannot be written to {self._folder} ({_short(error)}); make room "
                "or mend the folder, and go on with --resume."
            ) from error

    def _facts(self, step: int) -> Facts:
        args = ocp.args.Composite(facts=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["facts"]

    def _state(
        self, step: int, shapes: TrainState, shardings: TrainState, facts: Facts
    ) -> TrainState:
        fields = _FIELDS_OF_FORMAT_1 if facts.get("format", 1) == 1 else {}
        wanted = _by_name(placed_shapes(shapes, shardings), fields)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
        arrays = self._manager.restore(step, args=args)["state"]
        found, digest = int(_digest(arrays)), facts["digest"]
        if found != digest:
            raise ValueError(f"its arrays have digest {found} where {digest} was written")
        return jax.tree.unflatten(jax.tree.structure(shapes), [arrays[name] for name in wanted])

    def _set_aside(self, damaged: dict[int, Exception], used: int) -> None:
        for step, error in damaged.items():
            place = self._folder.parent / DAMAGED / f"{step:06d}"
            place.parent.mkdir(exist_ok=True)
            (self._folder / f"{step:06d}").replace(place)
            _LOG.warning(
                "The checkpoint of step %d is damaged (%s); it lies in %s now, and step %d is "
                "gone on from.",
                *(step, _short(error), place, used),
            )
        if damaged:
            self._manager.reload()


def _by_name(state: TrainState, fields: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """All leaves by their path: what is stored does not depend on how classes are registered.

    Args:
      state: arrays or shapes.
      fields: stored names of fields of the state that are stored under another one.
    """
    named = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        field, dot, rest = name.partition(".")
        named[f"{fields.get(field, field)}{dot}{rest}"] = leaf
    return named


@jax.jit
def _digest(arrays: dict[str, Array]) -> Array:
    """A checksum that changes with any bit of the arrays, and with their order.

    Computed on the devices, where the arrays are: hashing them on the host would copy all of them
    there first. It guards against damage, not against forgery.
    """
    total = jnp.uint32(0)
    # Horner's rule over the arrays, with FNV's 32-bit prime: two arrays cannot be exchanged.
    for name in sorted(arrays):
        total = total * jnp.uint32(0x01000193) + _weighted_sum(arrays[name])
    return total


def _weighted_sum(array: Array) -> Array:
    # Every element has an odd weight of its own place: odd numbers are invertible modulo 2^32, so
    # that any change of one element changes the sum. 0x9E3779B1 is Knuth's multiplier (2^32 over
    # the golden ratio), which spreads the weights of neighbours.
    bits = _bits(array)
    places = jnp.uint32(1)
    for axis in range(bits.ndim):
        index = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        places = places * jnp.uint32(0x9E3779B1) + 2 * index
    return jnp.sum(bits * places, dtype=jnp.uint32)


def _bits(array: Array) -> PyTree[Array]:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(jnp.uint32)
    unsigned = {2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
    return jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
