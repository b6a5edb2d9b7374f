"""Tensors become trees and come back bit for bit, one at a time; what is partial is refused."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from shotstream_jax.checkpoints.naming import Layout, TensorMapping
from shotstream_jax.checkpoints.param_trees import (
    build_params,
    export_params,
    export_tensors,
    leaves_of,
)
from shotstream_jax.checkpoints.report import PartialWeightsError, compare
from shotstream_jax.checkpoints.tensors import LazyArray, Tensor, sections, unwrap

TABLE = {
    "same": TensorMapping(("same",), Layout.SAME, (3,)),
    "linear": TensorMapping(("deep", "linear"), Layout.LINEAR, (2, 3)),
    "conv2d": TensorMapping(("deep", "conv2d"), Layout.CONV2D, (2, 3, 4, 5)),
    "conv3d": TensorMapping(("deep", "conv3d"), Layout.CONV3D, (2, 3, 4, 5, 6)),
    "time": TensorMapping(("time",), Layout.TIME_CONV, (2, 3, 4, 1, 1)),
    "point": TensorMapping(("point",), Layout.POINTWISE, (2, 3, 1, 1, 1)),
    "patch": TensorMapping(("patch",), Layout.PATCH, (5, 4, 1, 2, 3)),
    "gamma": TensorMapping(("gamma",), Layout.VECTOR, (3, 1, 1)),
    "table": TensorMapping(("table",), Layout.DROP_FIRST, (1, 6, 2)),
    "blocks.0.w": TensorMapping(("blocks", "w"), Layout.LINEAR, (2, 3), 0),
    "blocks.1.w": TensorMapping(("blocks", "w"), Layout.LINEAR, (2, 3), 1),
}


@pytest.fixture
def tensors(random_tensors):
    return random_tensors(TABLE)


def test_arrays_are_laid_out_and_stacked(tensors):
    params = build_params(TABLE, tensors)
    np.testing.assert_array_equal(params["deep"]["linear"], tensors["linear"].T)
    np.testing.assert_array_equal(params["blocks"]["w"][1], tensors["blocks.1.w"].T)
    assert params["blocks"]["w"].shape == (2, 3, 2)
    assert params["gamma"].shape == (3,)
    assert params["table"].shape == (6, 2)
    assert params["deep"]["conv3d"][3, 4, 5, 2, 1] == tensors["conv3d"][1, 2, 3, 4, 5]
    assert params["time"][3, 2, 1] == tensors["time"][1, 2, 3, 0, 0]
    # Row 1 of 2, column 2 of 3, channel 3 of 4.
    assert params["patch"][(1 * 3 + 2) * 4 + 3, 4] == tensors["patch"][4, 3, 0, 1, 2]


def test_there_and_back_is_the_identity(tensors):
    returned = dict(export_params(TABLE, build_params(TABLE, tensors)))
    assert returned.keys() == tensors.keys()
    for name, values in tensors.items():
        np.testing.assert_array_equal(returned[name], values)


def test_arrays_on_devices_are_exported_alike(tensors):
    params = jax.tree.map(jnp.asarray, build_params(TABLE, tensors))
    for name, values in export_params(TABLE, params):
        np.testing.assert_array_equal(values, tensors[name])


def test_scratch_files_hold_the_same(tensors, tmp_path):
    in_memory, in_files = (
        build_params(TABLE, tensors),
        build_params(TABLE, tensors, scratch=tmp_path),
    )
    jax.tree.map(np.testing.assert_array_equal, in_memory, in_files)
    assert all(isinstance(leaf, np.memmap) for leaf in jax.tree.leaves(in_files))
    assert len(list(tmp_path.iterdir())) == len(jax.tree.leaves(in_files))


def test_values_are_cast_to_the_nearest(tensors):
    params = build_params(TABLE, tensors, jnp.bfloat16)
    assert params["same"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(params["same"], tensors["same"].astype(ml_dtypes.bfloat16))


def test_layers_of_different_dtypes_share_the_wider(tensors):
    narrow = tensors["blocks.0.w"].astype(ml_dtypes.bfloat16)
    params = build_params(TABLE, tensors | {"blocks.0.w": narrow})
    assert params["blocks"]["w"].dtype == np.float32
    assert params["same"].dtype == np.float32
    np.testing.assert_array_equal(params["blocks"]["w"][0], narrow.T.astype(np.float32))


def test_wrappers_leave_no_trace(tensors):
    wrapped = {
        "model._fsdp_wrapped_module." + name.replace(".w", "._checkpoint_wrapped_module.w"): values
        for name, values in tensors.items()
    }
    params = build_params(TABLE, wrapped)
    jax.tree.map(np.testing.assert_array_equal, params, build_params(TABLE, tensors))
    assert list(unwrap({"_orig_mod.model.x": tensors["same"]})) == ["x"]


def test_two_tensors_of_one_name_are_refused(tensors):
    with pytest.raises(ValueError, match=r"Two tensors are named same .*model\.same"):
        unwrap(tensors | {"model.same": tensors["same"]})


def test_sections_are_what_stands_before_the_first_dot(tensors):
    assert sections({"b.x": tensors["same"], "a": tensors["same"], "b.y": tensors["same"]}) == [
        "b",
        "a",
    ]


def test_each_tensor_is_read_once_and_layers_follow_one_another(tensors):
    read = []

    def counted(name: str) -> LazyArray:
        values = tensors[name]
        return LazyArray(values.shape, values.dtype, lambda: read.append(name) or values)

    counting = {name: counted(name) for name in tensors}
    assert compare(TABLE, counting).whole
    assert read == []
    build_params(TABLE, counting)
    assert sorted(read) == sorted(tensors)


def test_a_leaf_is_read_once_for_all_its_layers(tensors):
    read = []

    def counted(path: tuple[str, ...], leaf: Tensor) -> LazyArray:
        values = np.asarray(leaf)
        return LazyArray(leaf.shape, leaf.dtype, lambda: read.append(path) or values)

    leaves = leaves_of(build_params(TABLE, tensors))
    exported = export_tensors(TABLE, {path: counted(path, leaf) for path, leaf in leaves.items()})
    assert read == []
    for tensor in exported.values():
        np.asarray(tensor)
    assert sorted(read) == sorted(leaves)


def test_missing_unexpected_and_misshaped_keys_are_all_named(tensors):
    del tensors["linear"]
    tensors["stray"] = tensors["same"]
    tensors["gamma"] = tensors["gamma"][:2]
    with pytest.raises(PartialWeightsError) as caught:
        build_params(TABLE, tensors)
    report, message = caught.value.report, str(caught.value)
    assert report.missing == ("linear",)
    assert report.unexpected == ("stray",)
    assert [str(bad) for bad in report.misshaped] == ["gamma [2, 1, 1] for [3, 1, 1]"]
    assert report.used == len(TABLE) - 2
    assert not report.whole
    for part in ("1 missing (linear)", "1 unexpected (stray)", "gamma [2, 1, 1] for [3, 1, 1]"):
        assert part in message
    assert "\n" not in message


def test_a_long_list_of_keys_is_cut_short_in_the_message_only(tensors):
    with pytest.raises(
        PartialWeightsError, match=r"11 missing \(same, linear, conv2d and 8 more\)"
    ):
        build_params(TABLE, {})
    assert len(compare(TABLE, {}).missing) == len(TABLE)
    assert compare(TABLE, tensors).missing == ()


def test_the_report_counts_what_changes(tensors):
    report = compare(TABLE, tensors, np.dtype(ml_dtypes.bfloat16))
    assert (report.used, report.leaves) == (11, 10)
    assert report.dtypes == {"float32 -> bfloat16": 11}
    assert report.layouts["[out, in] -> [in, out]"] == 3
    assert sum(report.layouts.values()) == 10
    assert compare(TABLE, tensors).dtypes == {"float32": 11}


def test_the_digest_tells_sets_of_keys_apart(tensors):
    digest = compare(TABLE, tensors).digest
    assert compare(TABLE, dict(reversed(tensors.items()))).digest == digest
    assert compare(TABLE, tensors | {"same": tensors["same"][:2]}).digest != digest
    assert compare(TABLE, tensors | {"same": tensors["same"].astype(np.float16)}).digest != digest
    assert compare(TABLE, tensors | {"more": tensors["same"]}).digest != digest


def test_trees_of_another_network_are_not_exported(tensors):
    params = build_params(TABLE, tensors)
    with pytest.raises(ValueError, match=r"Parameter more has shape \(3,\).* None"):
        list(export_params(TABLE, params | {"more": params["same"]}))
    with pytest.raises(ValueError, match=r"Parameter same has shape None"):
        list(export_params(TABLE, {k: v for k, v in params.items() if k != "same"}))
    with pytest.raises(ValueError, match=r"Parameter same has shape \(2,\).*\(3,\)"):
        list(export_params(TABLE, params | {"same": params["same"][:2]}))
