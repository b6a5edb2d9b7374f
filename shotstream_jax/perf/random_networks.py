"""Networks of any size with random weights, made where they are used: speed needs no others.

Weights are drawn on the device in the format they are used in; the host never holds them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from shotstream_jax.data.encode import text_encoder_fn
from shotstream_jax.data.tokenizer import word_tokenizer
from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.text_encoder import init_text_encoder
from shotstream_jax.models.vae import init_vae
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.rollout.networks import EncodeText, Networks, approximated
from shotstream_jax.sharding import replicated, shardings_for
from shotstream_jax.storyworld.captions import VOCABULARY
from shotstream_jax.typing import Params


def random_networks(
    shape: FilmShape,
    mesh: Mesh,
    *,
    seed: int = 0,
    text_on_host: bool = False,
    vae_apart: Sharding | None = None,
) -> Networks:
    """Networks ready to film, placed as those with real weights are.

    `text_on_host` keeps the text encoder in host memory and runs it there; `vae_apart` is where
    the autoencoder goes, if not to the mesh.
    """
    dit_key, vae_key, text_key = jax.random.split(jax.random.key(seed), 3)
    dtype = shape.compute.dtype
    # UMT5-XXL takes 11.4 GB in bfloat16, four times a 1.3B's transformer, and runs once a caption.
    text_where = SingleDeviceSharding(jax.local_devices(backend="cpu")[0]) if text_on_host else mesh
    text = _draw(init_text_encoder, text_key, shape.config.text, dtype, text_where)
    networks = Networks(
        config=shape.config,
        dit=_draw(init_dit, dit_key, shape.config.dit, dtype, mesh),
        # Float32 as `open_model` loads it: the decoder casts where it computes, encoding does not.
        vae=_draw(init_vae, vae_key, shape.config.vae, jnp.float32, vae_apart or replicated(mesh)),
        encode_text=_encoder(text, shape, mesh),
        compute=shape.compute,
        decode_dtype=dtype,
        mesh=mesh,
        vae_apart=vae_apart,
        merged_passes=shape.merged_passes,
    )
    return approximated(networks, shape.approximation)


def _encoder(text: Params, shape: FilmShape, mesh: Mesh) -> EncodeText:
    """Captions through a stand-in tokenizer: what an id means plays no part in its cost."""
    length = shape.config.dit.text_tokens
    encode = text_encoder_fn(
        text,
        shape.config.text,
        word_tokenizer(VOCABULARY, length),
        text_tokens=length,
        dtype=shape.compute.dtype,
    )
    return lambda captions: jax.device_put(encode(captions), replicated(mesh))


def _draw(init: Callable[..., Params], key: Any, config: Any, dtype: Any, where: Any) -> Params:
    draw = functools.partial(_cast, init, config, dtype)
    # Shapes first, for the shardings: with them each device is left with its own part alone.
    shapes = jax.eval_shape(draw, key)
    if isinstance(where, Mesh):
        shardings = shardings_for(shapes, where)
    else:
        key, shardings = jax.device_put(key, where), jax.tree.map(lambda _: where, shapes)
    return jax.jit(draw, out_shardings=shardings)(key)


def _cast(init: Callable[..., Params], config: Any, dtype: Any, key: Any) -> Params:
    return jax.tree.map(lambda x: x.astype(dtype), init(key, config))
