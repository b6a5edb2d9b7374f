"""Floating-point operations of filming: of each call that an `Engine` makes, each program, a shot.

Calls are named as in `rollout/programs.py`, programs as in `film_programs.py` beside this file.
What has no matrix products or convolutions to speak of costs nothing here.
"""

import collections

from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.perf.plan.cost import (
    decode_flops,
    dit_flops,
    encode_flops,
    keys_flops,
    text_flops,
)
from shotstream_jax.rollout.programs import Part


def call_flops(shape: FilmShape, part: Part, chunk: int = 0, *, begins: bool = False) -> int:
    """Operations of one call for chunk number `chunk` since the cut.

    Merged passes count as the two that they stand for; the clean one is of the chunk before.
    `begins` marks the decoding of a take's first latent frame.
    """
    config, window, tokens = shape.config, shape.config.rollout.window, shape.frame_tokens
    queries, context = window.chunk * tokens, window.context * tokens
    # A chunk sees the context, the chunks before it and itself, until the window rolls: 14040 to
    # 42120 keys of the 1.3B at 480 x 832.
    keys = context + min((chunk + 1) * window.chunk, window.local) * tokens
    context_pass = keys_flops(config.dit, context, context)
    denoise = len(config.rollout.steps) * dit_flops(config.dit, queries, keys)
    before = context + min(chunk * window.chunk, window.local) * tokens
    costs: dict[Part, int] = {
        "text": text_flops(config.text, config.dit.text_tokens),
        "context encode": encode_flops(config.vae, shape.positions),
        "context pass": context_pass,
        "context pass and denoise": context_pass + denoise,
        "denoise": denoise,
        "clean pass": keys_flops(config.dit, queries, keys),
        "clean pass and denoise": keys_flops(config.dit, queries, before) + denoise,
        "decode": decode_flops(config.vae, shape.positions, first=begins),
    }
    return costs.get(part, 0)


def program_flops(shape: FilmShape, program: str) -> int:
    """Operations of one program; those of a chunk for the last of a shot, which sees most."""
    last = shape.chunks - 1
    parts: dict[str, Part] = {
        "text": "text",
        "encode": "context encode",
        "context": "context pass",
        "chunk": "denoise",
        "chunk-keys": "denoise",
        "commit": "clean pass",
        "commit-chunk": "clean pass and denoise",
        "decode": "decode",
    }
    match program:
        case "shot":
            return _chunks_flops(shape, range(shape.chunks))
        case "context-chunk":
            return call_flops(shape, "context pass and denoise", 0)
        case "decode-first":
            return call_flops(shape, "decode", begins=True)
        case _:
            return call_flops(shape, parts[program], last) if program in parts else 0


def shot_flops(shape: FilmShape, filmed: int = 0, *, is_first: bool) -> int:
    """Operations of a shot from its caption to its last frame.

    Args:
      shape: of the film; its chunks are those of the shot.
      filmed: chunks since the last cut; above 0 the shot continues the one before.
      is_first: whether no earlier shot is there to be seen.
    """
    window = shape.config.rollout.window
    total = call_flops(shape, "text")
    if filmed == 0:
        total += call_flops(shape, "context pass")
        # A first shot's context is zeros: nothing is encoded. Its context pass is run all the same.
        if not is_first and shape.approximation.decoded_context:
            total += window.context * call_flops(shape, "context encode")
    chunks = range(filmed, filmed + shape.chunks)
    # The first latent frame after a cut is decoded to one video frame, at an eighth of the
    # operations.
    begun = int(filmed == 0)
    total += begun * call_flops(shape, "decode", begins=True)
    total += (shape.shot_latent_frames - begun) * call_flops(shape, "decode")
    return total + _chunks_flops(shape, chunks)


def film_flops(shape: FilmShape) -> int:
    """Operations of a shot that follows another one at a cut, without its caption's text."""
    return shot_flops(shape, is_first=False) - call_flops(shape, "text")


def _chunks_flops(shape: FilmShape, chunks: range) -> int:
    """Denoising of some chunks, and the clean pass of the chunk before each of them."""
    # Beyond the local window every chunk sees as much as the one before: counted once, since a
    # story may ask for a million of them.
    window = shape.config.rollout.window
    full = window.local // window.chunk
    counts = collections.Counter(min(chunk, full) for chunk in chunks)
    denoise = sum(n * call_flops(shape, "denoise", k) for k, n in counts.items())
    if not shape.approximation.clean_pass:
        return denoise
    # A chunk's clean pass is run when the next one is filmed: a take's last chunk has none.
    before = collections.Counter(min(chunk - 1, full) for chunk in chunks if chunk)
    return denoise + sum(n * call_flops(shape, "clean pass", k) for k, n in before.items())
