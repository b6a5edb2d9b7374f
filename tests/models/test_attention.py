import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu import splash_attention

from shotstream_jax.models import attention
from shotstream_jax.models.attention import attend, attend_levels, split_over_devices
from shotstream_jax.models.cache import Prefix
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


def prefix_of(count, counts=(1, 5, 7, 8)):
    return Prefix(which=jnp.int32(counts.index(count)), counts=counts)


@pytest.mark.parametrize("count", [1, 5, 8])
@pytest.mark.parametrize(
    "seen", [Prefix.known, prefix_of], ids=["known when compiled", "chosen when run"]
)
def test_nothing_beyond_a_prefix_is_read(count, seen):
    q, k, v = random_qkv()
    visible = np.arange(8) < count
    unread = jnp.where(visible[:, None, None], 0, jnp.nan)
    found = attend(q, k + unread, v + unread, seen(count))
    np.testing.assert_allclose(found, softmax_attention(q, k, v, visible), atol=2e-6)


def test_attends_to_everything_if_nothing_is_said():
    q, k, v = random_qkv()
    np.testing.assert_allclose(attend(q, k, v), softmax_attention(q, k, v, True), atol=2e-6)


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


@pytest.mark.parametrize("seen", ["None", "Prefix(which=jax.numpy.int32(1), counts=(2, 5, 8))"])
def test_a_kernel_on_many_devices_is_the_kernel(seen):
    script = f"""
import jax, numpy as np
from shotstream_jax.models.attention import attend, split_over_devices
from shotstream_jax.models.cache import Prefix
from shotstream_jax.sharding import make_mesh
seen = {seen}
keys = jax.random.split(jax.random.key(0), 3)
q, k, v = (jax.random.normal(key, (batch, 8, 4, 16)) for key, batch in zip(keys, (2, 2, 2)))
for sizes in (dict(tensor=4), dict(fsdp=2, tensor=4), dict(data=2, fsdp=2, tensor=2)):
    mesh = make_mesh(jax.devices()[: np.prod(list(sizes.values()))], **sizes)
    split = jax.jit(split_over_devices(attend, mesh))(q, k, v, seen)
    assert len(split.sharding.device_set) == mesh.size
    np.testing.assert_allclose(split, attend(q, k, v, seen), atol=1e-6)
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
    prefix = prefix_of(7)
    whole = attend(q, k, v, prefix)
    monkeypatch.setattr(attention, "_XLA_LOGITS", 2 * 3 * 8 * 5)
    np.testing.assert_allclose(attend(q, k, v, prefix), whole, atol=1e-6)


def test_bfloat16_stays_near_float32():
    q, k, v = random_qkv()
    half = attend(*(x.astype(jnp.bfloat16) for x in (q, k, v)), Prefix.known(6))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        half.astype(jnp.float32), attend(q, k, v, Prefix.known(6)), atol=0.05
    )


@pytest.mark.parametrize(
    ("queries", "keys", "seen"),
    [
        (200, 700, None),
        (200, 1100, prefix_of(513, counts=(200, 513, 1100))),
        (8, 40, prefix_of(1, counts=(1, 40))),
    ],
)
def test_tpu_kernel_equals_plain_attention(monkeypatch, queries, keys, seen):
    """The Pallas kernel, interpreted: odd sizes are padded, unseen keys change and hear nothing."""
    make = splash_attention.make_splash_mha
    monkeypatch.setattr(
        splash_attention, "make_splash_mha", functools.partial(make, interpret=True)
    )
    shapes = [(2, queries, 2, 128), (2, keys, 2, 128), (2, keys, 2, 128)]
    q, k, v = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))

    def mixed(backend, q, k, v):
        return attend(q, k, v, seen, backend=backend)

    found, back = jax.vjp(functools.partial(mixed, "splash"), q, k, v)
    expected, back_expected = jax.vjp(functools.partial(mixed, "xla"), q, k, v)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    for one, other in zip(back(expected), back_expected(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
