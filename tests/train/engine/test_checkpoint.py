"""Checkpoints come back bit for bit, and damaged ones never do."""

import dataclasses
import gc
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import SingleDeviceSharding

from shotstream_jax.train.engine.checkpoint import Store
from shotstream_jax.train.engine.optimizer import Objective, OptimizerConfig
from shotstream_jax.train.engine.state import init_state

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected():
    """Orbax leaves reads of damaged files unfinished; they complain here, not in later tests."""
    yield
    gc.collect()


def state_at(step):
    config = OptimizerConfig(learning_rate=1.0, ema=0.5)
    objective = Objective(loss=lambda *args: None, optimizer=config)
    params = {"net": {"kernel": jax.random.normal(jax.random.key(step), (64, 32))}}
    carry = {"latents": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)}
    state = init_state(params, {"net": objective}, seed=5, carry=carry)
    carry = {"latents": jnp.full((2, 3), step / 3, jnp.bfloat16)}
    return dataclasses.replace(state, step=jnp.asarray(step, jnp.int32), carry=carry)


def restore(store, check=lambda facts: None):
    shapes = jax.eval_shape(state_at, 0)
    here = SingleDeviceSharding(jax.devices()[0])
    return store.restore(shapes, jax.tree.map(lambda _: here, shapes), check)


@pytest.fixture
def folder(tmp_path):
    """A run with checkpoints of steps 2, 4 and 6."""
    store = Store(tmp_path, keep=5)
    for step in (2, 4, 6):
        store.save(state_at(step), {"data": step})
    store.close()
    return tmp_path


@pytest.fixture
def reopen(folder):
    stores = []

    def opened():
        stores.append(Store(folder, keep=5))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def arrays_of(folder, step):
    place = folder / "checkpoints" / f"{step:06d}" / "state"
    return sorted((p for p in place.rglob("*") if p.is_file()), key=lambda p: -p.stat().st_size)


def test_the_newest_comes_back_bit_for_bit(reopen):
    state, facts = restore(reopen())
    same(state, state_at(6))
    assert facts["data"] == 6


def digest_by_hand(arrays):
    """The sum of every element's bits times an odd weight of its place, array after array."""
    total = np.uint32(0)
    with np.errstate(over="ignore"):
        for name in sorted(arrays):
            array = np.asarray(arrays[name])
            unsigned = {2: np.uint16, 4: np.uint32}[array.dtype.itemsize]
            bits = np.ascontiguousarray(array).view(unsigned).astype(np.uint32)
            weights = np.ones(array.shape, np.uint32)
            for axis in range(array.ndim):
                index = np.arange(array.shape[axis], dtype=np.uint32)
                index = index.reshape([-1 if a == axis else 1 for a in range(array.ndim)])
                weights = weights * np.uint32(0x9E3779B1) + np.uint32(2) * index
            total = total * np.uint32(0x01000193) + np.sum(bits * weights, dtype=np.uint32)
    return int(total)


def test_a_checkpoint_of_format_1_is_read(tmp_path):
    """Optimizer state and EMA had other names in it, and the facts said nothing of a format."""
    old = {"opt_state": "moments", "ema_params": "means"}
    arrays = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state_at(6))[0]:
        field, *rest = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
        arrays[".".join((old.get(field, field), *rest))] = leaf
    assert "means.net.kernel" in arrays
    assert any(name.startswith("moments.net.") for name in arrays)
    options = ocp.CheckpointManagerOptions(step_format_fixed_length=6)
    manager = ocp.CheckpointManager(tmp_path / "checkpoints", options=options)
    facts = {"data": 6, "digest": digest_by_hand(arrays)}
    args = {"state": ocp.args.StandardSave(arrays), "facts": ocp.args.JsonSave(facts)}
    manager.save(6, args=ocp.args.Composite(**args))
    manager.close()
    store = Store(tmp_path, keep=1)
    state, found = restore(store)
    store.close()
    same(state, state_at(6))
    assert found == facts


def test_nothing_saved_is_nothing_restored(tmp_path):
    store = Store(tmp_path, keep=1)
    assert restore(store) is None
    store.close()


def test_only_the_newest_are_kept(tmp_path):
    store = Store(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        store.save(state_at(step), {})
    store.close()
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["000003", "000004"]


def test_a_step_that_is_there_is_not_written_twice(reopen):
    store = reopen()
    store.save(state_at(6), {"data": "other"})
    store.wait()
    assert restore(store)[1]["data"] == 6


def test_half_a_checkpoint_is_not_seen(folder, reopen):
    whole = folder / "checkpoints" / "000006"
    shutil.copytree(whole, whole.with_name("000008.orbax-checkpoint-tmp-123"))
    assert restore(reopen())[1]["data"] == 6


def cut_off(folder, step):
    path = arrays_of(folder, step)[0]
    path.write_bytes(path.read_bytes()[:100])


def flip_a_bit(folder, step):
    path = arrays_of(folder, step)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def lose_a_file(folder, step):
    arrays_of(folder, step)[0].unlink()


def empty_the_facts(folder, step):
    for path in (folder / "checkpoints" / f"{step:06d}" / "facts").iterdir():
        path.write_text("")


def lie_about_the_arrays(folder, step):
    path = folder / "checkpoints" / f"{step:06d}" / "facts" / "metadata"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "digest": facts["digest"] ^ 1}))


DAMAGE = [cut_off, flip_a_bit, lose_a_file, empty_the_facts, lie_about_the_arrays]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(folder, reopen, damage, caplog):
    damage(folder, 6)
    store = reopen()
    state, facts = restore(store)
    same(state, state_at(4))
    assert facts["data"] == 4
    assert (folder / "damaged" / "000006").is_dir()
    assert "step 6 is damaged" in caplog.text
    store.save(state_at(6), {"data": "new"})
    store.wait()
    assert restore(store)[1]["data"] == "new"


def test_a_run_whose_checkpoints_are_all_damaged_is_not_begun_again(folder, reopen):
    for step in (2, 4, 6):
        cut_off(folder, step)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"No checkpoint in .* is whole"):
            restore(reopen())
    assert len(list((folder / "checkpoints").iterdir())) == 3


def test_a_refusal_is_not_damage(folder, reopen):
    def refuse(facts):
        raise ValueError("another stage")

    with pytest.raises(ValueError, match="another stage"):
        restore(reopen(), refuse)
    assert not (folder / "damaged").exists()


def test_what_cannot_be_written_is_an_error_of_the_system(reopen, monkeypatch):
    store = reopen()

    def full(*args, **settings):
        raise Exception("RESOURCE_EXHAUSTED: No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    with pytest.raises(OSError, match=r"No space left.*--resume"):
        store.save(state_at(8), {})
