import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models.cache import (
    KeyValue,
    TextKeys,
    Window,
    chunk_slot,
    init_cache,
    write_chunk,
    write_context,
)
from shotstream_jax.models.configs import DiTConfig

CONFIG = DiTConfig(dim=8, layers=2, heads=2, ffn_dim=8, text_tokens=3)
TOKENS = 5


def blank(window):
    text = jnp.ones((2, 1, 1, 3, 2, 4))
    return init_cache(CONFIG, window, TextKeys(key=text, value=text), TOKENS)


def keys_of(number, frames):
    shape = (CONFIG.layers, 1, frames * TOKENS, CONFIG.heads, CONFIG.head_dim)
    return KeyValue(key=jnp.full(shape, float(number)), value=jnp.full(shape, -float(number)))


def drawn_rows(row_name):
    """`which chunk lies where` of `chunk_slot`'s drawing, one string a chunk."""
    lines = [line.split() for line in chunk_slot.__doc__.splitlines()]
    return next(line[2:] for line in lines if line[:2] == row_name.split())


@pytest.mark.parametrize("sink", [0, 1])
def test_chunks_lie_as_drawn(sink):
    window = Window(chunk=2, context=3, local=6, sink=2 * sink)
    cache = blank(window)
    for chunk, drawn in enumerate(drawn_rows(f"sink {sink}")):
        cache = write_chunk(cache, keys_of(chunk + 1, window.chunk), chunk)
        first_of_chunk = np.asarray(cache.local.key)[0, 0, :: 2 * TOKENS, 0, 0]
        names = "".join("." if value == 0 else str(int(value) - 1) for value in first_of_chunk)
        assert names == drawn
        visible = window.context + 2 * len(drawn.replace(".", ""))
        assert chunk_slot(window, TOKENS, chunk).visible.counts == (visible * TOKENS,)


def test_context_and_chunks_do_not_touch_each_other():
    window = Window(chunk=2, context=3, local=6)
    cache = write_chunk(blank(window), keys_of(7, 2), 1)
    cache = write_context(cache, keys_of(9, 3))
    np.testing.assert_array_equal(cache.context.key, 9)
    np.testing.assert_array_equal(cache.context.value, -9)
    chunk = slice(2 * TOKENS, 4 * TOKENS)
    np.testing.assert_array_equal(cache.local.value[:, :, chunk], -7)
    untouched = np.delete(np.asarray(cache.local.key), np.r_[chunk], axis=2)
    np.testing.assert_array_equal(untouched, 0)


def test_slot_is_the_same_traced_and_known():
    window = Window(chunk=2, context=3, local=6, sink=2)
    slot = jax.jit(lambda chunk: chunk_slot(window, TOKENS, chunk))
    for chunk in range(9):
        known = chunk_slot(window, TOKENS, chunk)
        assert (int(slot(chunk).start), int(slot(chunk).visible.count)) == (
            known.start,
            known.visible.count,
        )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"local": 7}, "local window of 7 frames is not whole chunks of 3"),
        ({"sink": 2}, "sink window of 2 frames is not whole chunks of 3"),
        ({"sink": 21}, "sink of 21 frames leaves no room in a local window of 21"),
    ],
)
def test_windows_that_cannot_roll_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        Window(**sizes)
