"""8-bit weights become what they stand for, and markers are no obstacle."""

import ml_dtypes
import numpy as np
import pytest

from shotstream_jax.checkpoints.names_dit import dit_names
from shotstream_jax.checkpoints.naming import Layout, TensorMapping
from shotstream_jax.checkpoints.param_trees import build_params
from shotstream_jax.checkpoints.quantisation import plain_weights
from shotstream_jax.checkpoints.report import compare
from shotstream_jax.checkpoints.safetensors_files import read_safetensors
from tests.checkpoints.lora_layouts import save_safetensors

KERNEL = "blocks.1.ffn.0.weight"
E4M3 = ml_dtypes.float8_e4m3fn


@pytest.fixture
def table(sizes):
    return dit_names(sizes["dit"])


@pytest.fixture
def tensors(table, random_tensors):
    return random_tensors(table)


def in_eighths(tensors, dtype=E4M3):
    return {
        name: values.astype(dtype) if values.ndim == 2 else values
        for name, values in tensors.items()
    }


@pytest.mark.parametrize("kind", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("shape", [(), (1,), (-1,), (-1, 1)])
@pytest.mark.parametrize("dtype", [E4M3, ml_dtypes.float8_e5m2])
def test_scaled_weights_are_multiplied_out(table, tensors, kind, shape, dtype, tmp_path):
    """Kind: fp8 with scales, in the layouts of ComfyUI and of compressed-tensors."""
    stored = in_eighths(tensors, dtype)
    for name, values in list(stored.items()):
        if values.dtype == dtype:
            rows = values.shape[0] if -1 in shape else 1
            scale = np.linspace(0.5, 2, rows, dtype=np.float32).reshape(shape)
            stored[f"{name.removesuffix('.weight')}.{kind}"] = scale
            stored[f"{name.removesuffix('.weight')}.input_scale"] = np.float32(3)
    stored["scaled_fp8"] = np.zeros(2, dtype)
    save_safetensors(tmp_path / "x.safetensors", stored)
    plain, notes = plain_weights(table, read_safetensors(tmp_path / "x.safetensors"), "x")
    assert compare(table, plain).whole
    scale = stored[f"{KERNEL.removesuffix('.weight')}.{kind}"].reshape(-1, 1)
    expected = tensors[KERNEL].astype(dtype).astype(np.float32) * scale
    np.testing.assert_allclose(np.asarray(plain[KERNEL]), expected, rtol=1e-6)
    assert any("multiplied by their scales" in note for note in notes)
    assert any("scaled_fp8" in note or "more" in note for note in notes)


def test_a_scale_for_every_block_is_spread_over_it():
    """Kind: fp8 with a scale a block of 128."""
    table = {"x.weight": TensorMapping(("x", "kernel"), Layout.LINEAR, (130, 260))}
    weight = np.ones((130, 260), E4M3)
    scale = np.arange(6, dtype=np.float32).reshape(2, 3)
    plain, _ = plain_weights(table, {"x.weight": weight, "x.weight_scale_inv": scale}, "x")
    values = np.asarray(plain["x.weight"])
    assert [values[0, 0], values[127, 128], values[128, 127], values[129, 259]] == [0, 1, 3, 5]


def test_weights_of_eight_bits_without_scales_are_exact_in_bfloat16(table, tensors):
    """Kind: fp8 that was only cast."""
    plain, notes = plain_weights(table, in_eighths(tensors), "x")
    assert plain[KERNEL].dtype == ml_dtypes.bfloat16
    params = build_params(table, plain)
    np.testing.assert_array_equal(
        params["blocks"]["ffn"]["up"]["kernel"][1].astype(np.float32).T,
        tensors[KERNEL].astype(E4M3).astype(np.float32),
    )
    assert any("bfloat16" in note for note in notes)


def test_scales_that_are_missing_or_do_not_fit_are_refused(table, tensors):
    """Kind: half of a quantised file."""
    stored = in_eighths(tensors)
    with pytest.raises(ValueError, match="without a scale"):
        plain_weights(table, stored | {"scaled_fp8": np.zeros(0, E4M3)}, "x")
    name = KERNEL.removesuffix("weight") + "scale_weight"
    with pytest.raises(ValueError, match="without a scale"):
        plain_weights(table, stored | {name: np.float32(1)}, "x")
    one = tensors | {KERNEL: stored[KERNEL], name: np.ones(7, np.float32)}
    with pytest.raises(ValueError, match=r"scale of shape \[7\] for blocks\.1\.ffn\.0\.weight"):
        plain_weights(table, one, "x")
    marker = np.frombuffer(b'{"format": "nvfp4"}', np.uint8)
    with pytest.raises(ValueError, match="format nvfp4, which is not read"):
        plain_weights(table, tensors | {"blocks.1.ffn.0.comfy_quant": marker}, "x")


@pytest.mark.parametrize(
    "marker", ["scaled_fp8", "blocks.0.ffn.0.comfy_quant", "n_averaged", "freqs", "step", "rest"]
)
def test_markers_pass_and_are_said(table, tensors, marker):
    """Kind: tensors that are no values of the network."""
    values = np.zeros(0 if marker == "rest" else 1, np.float32)
    plain, notes = plain_weights(table, tensors | {marker: values}, "x")
    assert plain.keys() == table.keys()
    assert marker in notes[0]
    assert plain_weights(table, tensors | {"stray": np.ones(1)}, "x")[0].keys() != table.keys()


@pytest.mark.parametrize("dtype", [np.int8, np.bool_, np.int64, np.uint8])
def test_integers_and_flags_with_a_place_are_refused_by_name(table, tensors, dtype):
    """Kind: quantised weights without scales (q32_int8)."""
    report = compare(table, tensors | {KERNEL: tensors[KERNEL].astype(dtype)})
    assert report.not_floats == (f"{KERNEL} {np.dtype(dtype)}",)
    assert not report.whole
    assert f"1 no floating-point numbers ({KERNEL}" in str(report)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_name(table, tensors, bad):
    """Kind: one NaN in one kernel (nan32)."""
    tensors[KERNEL][3, 5] = bad
    with pytest.raises(ValueError, match=r"blocks\.1\.ffn\.0\.weight has 1 values that are not fi"):
        build_params(table, tensors)


@pytest.mark.parametrize(("dtype", "large"), [(np.float16, 1e5), (ml_dtypes.bfloat16, 3.4e38)])
def test_values_beyond_a_narrower_format_are_refused(table, tensors, dtype, large):
    """Kind: values that are finite in the file and not after the cast."""
    tensors[KERNEL][3, 5] = large
    build_params(table, tensors)
    with pytest.raises(ValueError, match=r"ffn\.0\.weight has 1 values beyond the range of"):
        build_params(table, tensors, dtype)
