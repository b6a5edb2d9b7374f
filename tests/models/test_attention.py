import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models import attention
from shotstream_jax.models.attention import attend, attend_levels, split_over_devices
from shotstream_jax.models.compute import default_compute
from shotstream_jax.sharding import make_mesh


def softmax_attention(q, k, v, seen):
    """Attention by the book, in float64; `seen[query, key]`."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    logits = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    weights = np.where(seen, np.exp(logits - logits.max(-1, keepdims=True)), 0)
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)


def random_qkv(queries=8, keys=8, batch=2):
    shapes = [(batch, queries, 3, 16), (batch, keys, 3, 16), (batch, keys, 3, 16)]
    return [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("when", [int, jnp.int32], ids=["when compiled", "when run"])
@pytest.mark.parametrize("length", [1, 5, 8])
def test_attends_to_a_prefix(length, when):
    """A length that is known when compiled cuts keys off, one known when run masks them."""
    q, k, v = random_qkv()
    seen = softmax_attention(q, k, v, np.arange(8) < length)
    np.testing.assert_allclose(attend(q, k, v, when(length)), seen, atol=2e-6)


def test_attends_to_everything_without_a_length():
    q, k, v = random_qkv()
    np.testing.assert_allclose(attend(q, k, v), softmax_attention(q, k, v, True), atol=2e-6)


def test_keys_beyond_the_length_cannot_matter():
    q, k, v = random_qkv()
    length = jnp.int32(5)
    garbage = jnp.arange(8)[None, :, None, None] >= length
    changed = attend(q, jnp.where(garbage, 1e4, k), jnp.where(garbage, -1e4, v), length)
    np.testing.assert_array_equal(changed, attend(q, k, v, length))


def test_levels_are_the_drawing_in_the_docstring():
    drawing = [line.split()[1:] for line in attend_levels.__doc__.splitlines() if " x " in line]
    seen = np.array([[mark == "x" for mark in row] for row in drawing])
    seen = np.repeat(seen, [2, 3, 3], axis=0)
    q, k, v = random_qkv()
    np.testing.assert_allclose(
        attend_levels(q, k, v, [2, 3, 3]), softmax_attention(q, k, v, seen), atol=2e-6
    )


def test_levels_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match="hold 5 tokens, not 8"):
        attend_levels(*random_qkv(), [2, 3])


@pytest.mark.parametrize("length", [None, 5])
def test_a_kernel_on_many_devices_is_the_kernel(length):
    script = f"""
import jax, numpy as np
from shotstream_jax.models.attention import attend, split_over_devices
from shotstream_jax.sharding import make_mesh
keys = jax.random.split(jax.random.key(0), 3)
q, k, v = (jax.random.normal(key, (batch, 8, 4, 16)) for key, batch in zip(keys, (2, 2, 2)))
for sizes in (dict(tensor=4), dict(fsdp=2, tensor=4), dict(data=2, fsdp=2, tensor=2)):
    mesh = make_mesh(jax.devices()[: np.prod(list(sizes.values()))], **sizes)
    split = jax.jit(split_over_devices(attend, mesh))(q, k, v, {length})
    assert len(split.sharding.device_set) == mesh.size
    np.testing.assert_allclose(split, attend(q, k, v, {length}), atol=1e-6)
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    environment = {**os.environ, **flags}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_one_device_is_given_the_kernel_itself():
    assert split_over_devices(attend, None) is attend
    assert split_over_devices(attend, make_mesh(jax.devices()[:1])) is attend


@pytest.mark.parametrize(
    ("head_dim", "dtype", "platform", "backend"),
    [
        (128, None, "tpu", "splash"),
        (64, None, "tpu", "xla"),
        (128, jnp.float32, "tpu", "xla"),
        (64, None, "gpu", "cudnn"),
        (128, None, "cpu", "xla"),
    ],
)
def test_the_fast_way_of_a_platform(head_dim, dtype, platform, backend):
    assert default_compute(head_dim, dtype, platform).attention == backend


def test_long_queries_in_pieces_equal_all_at_once(monkeypatch):
    q, k, v = random_qkv(queries=12)
    length = jnp.int32(7)
    whole = attend(q, k, v, length)
    monkeypatch.setattr(attention, "_XLA_LOGITS", 2 * 3 * 8 * 5)
    np.testing.assert_allclose(attend(q, k, v, length), whole, atol=1e-6)


def test_bfloat16_stays_near_float32():
    q, k, v = random_qkv()
    half = attend(*(x.astype(jnp.bfloat16) for x in (q, k, v)), 6)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), attend(q, k, v, 6), atol=0.05)


@pytest.mark.parametrize(
    ("queries", "keys", "length"), [(200, 700, None), (200, 700, 513), (8, 40, 1)]
)
def test_tpu_kernel_equals_plain_attention(monkeypatch, queries, keys, length):
    """The Pallas kernel, interpreted: odd sizes are padded, keys beyond the length unseen."""
    make = attention.splash_attention.make_splash_mha
    monkeypatch.setattr(
        attention.splash_attention, "make_splash_mha", functools.partial(make, interpret=True)
    )
    shapes = [(2, queries, 2, 128), (2, keys, 2, 128), (2, keys, 2, 128)]
    q, k, v = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))
    # A length that is known would only cut keys off, for kernel and reference alike.
    mixed = attend(q, k, v, None if length is None else jnp.int32(length), backend="splash")
    np.testing.assert_allclose(mixed, attend(q, k, v, length), atol=2e-5)
