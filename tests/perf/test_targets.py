import importlib.util

import jax
import pytest

from shotstream_jax.perf.peaks import peak_flops
from shotstream_jax.perf.targets import CHIPS, Target, find_target, target_mesh

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="pip install -e .[aot] brings the compiler"
)


def slice_of(count):
    return Target(name="t", chip=CHIPS["v5e"], devices=tuple(jax.devices()[:1]) * count)


@pytest.mark.parametrize(
    "name",
    [
        "gpu9",
        "gpu9:1x1",
        "v6e:7x9",
        "v6e",
        "v6e:",
        "v6e:2xtwo",
        "v5e:0x1",
        "v5e:2x2x1",
        "v5p:2x2",
        "v5e:32x32",
    ],
)
def test_unknown_targets_are_refused_in_one_line(name):
    with pytest.raises(ValueError, match=name) as refusal:
        find_target(name)
    assert "\n" not in str(refusal.value)


@needs_compiler
@pytest.mark.parametrize(
    ("name", "devices"),
    [
        ("v5e:1x1", 1),
        ("v5e:16x16", 256),
        ("v5p:1x1x1", 1),
        ("v5p:4x8x8", 256),
        ("v6e:2x4", 8),
        ("v6e:16x16", 256),
        ("v6e:1x256", 256),
        ("tpu7x:1x1x1", 2),
        ("tpu7x:4x8x8", 512),
    ],
)
def test_slices_of_1_to_256_chips_are_described(name, devices):
    """Also that a mesh can be laid over all of them; a tpu7x chip counts as two devices."""
    target = find_target(name)
    assert len(target.devices) == devices
    mesh = target_mesh(target, 12)
    assert mesh.size == devices
    assert 12 % mesh.shape["tensor"] == 0
    assert peak_flops(target.devices[0].device_kind) == target.chip.flops


def test_without_the_compiler_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed; `pip install shotstream-jax\[aot\]`"):
        find_target("v6e:1x1")


@pytest.mark.parametrize(
    ("heads", "asked", "said"),
    [
        (12, "tensor=5", "12 heads do not split over tensor=5"),
        (12, "tensor=2", "2 places for 4 devices"),
        (12, "data=4", "'data=4' is not understood"),
        (12, "tensor", "'tensor' is not understood"),
        (12, "tensor=2,fsdp=0", "'fsdp=0' is not understood"),
    ],
)
def test_meshes_that_do_not_fit_are_refused(heads, asked, said):
    with pytest.raises(ValueError, match=said):
        target_mesh(slice_of(4), heads, asked)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("TPU v6 lite", CHIPS["v6e"].flops),
        ("cpu", None),
    ],
)
def test_peaks_are_those_of_the_device(kind, peak):
    assert peak_flops(kind) == peak
