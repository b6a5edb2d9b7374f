"""What one call of each part of filming costs, and one run of each program, in operations.

Parts are the camera's (`rollout/programs.py`), programs those of `perf/plan/programs.py`. A part
without matrix products or convolutions to speak of costs nothing here.
"""

from shotstream_jax.perf.plan.cost import (
    decode_flops,
    dit_flops,
    encode_flops,
    keys_flops,
    text_flops,
)
from shotstream_jax.perf.plan.estimate import EngineSizes, shot_flops
from shotstream_jax.perf.plan.programs import FilmSizes
from shotstream_jax.rollout.programs import Part


def call_flops(sizes: FilmSizes, part: Part, chunk: int = 0, *, begins: bool = False) -> int:
    """Operations of one call of a part for chunk number `chunk` of a camera's film.

    Merged passes count as the two that they stand for; the clean one is of the chunk before.
    `begins` marks the decoding of a clip's first latent frame.
    """
    dit, window, tokens = sizes.dit, sizes.rollout.window, sizes.frame_tokens
    queries, context = window.chunk * tokens, window.context * tokens
    keys = context + min((chunk + 1) * window.chunk, window.local) * tokens
    context_pass = keys_flops(dit, context, context)
    denoise = len(sizes.rollout.steps) * dit_flops(dit, queries, keys)
    before = context + min(chunk * window.chunk, window.local) * tokens
    costs: dict[Part, int] = {
        "text": text_flops(sizes.text, dit.text_tokens),
        "context encode": encode_flops(sizes.vae, sizes.positions),
        "context pass": context_pass,
        "context pass and denoise": context_pass + denoise,
        "denoise": denoise,
        "clean pass": keys_flops(dit, queries, keys),
        "clean pass and denoise": keys_flops(dit, queries, before) + denoise,
        "decode": decode_flops(sizes.vae, sizes.positions, first=begins),
    }
    return costs.get(part, 0)


def program_flops(sizes: FilmSizes) -> dict[str, int]:
    """Operations of each program by name; `chunk` and `commit` for the last chunk of a shot."""
    last = sizes.chunks - 1
    denoise = [call_flops(sizes, "denoise", chunk) for chunk in range(sizes.chunks)]
    commit = [call_flops(sizes, "clean pass", chunk) for chunk in range(sizes.chunks)]
    return {
        "chunk": denoise[last],
        "commit": commit[last],
        "context": call_flops(sizes, "context pass"),
        "shot": sum(denoise) + sum(commit[:last]),
        "decode-first": call_flops(sizes, "decode", begins=True),
        "decode": call_flops(sizes, "decode"),
        "encode": call_flops(sizes, "context encode"),
        "text": call_flops(sizes, "text"),
    }


def film_flops(sizes: FilmSizes) -> int:
    """Operations of a shot that follows another one, without its caption's text.

    Context encode and pass, every denoising step and a clean pass for every chunk, decoding.
    """
    engine = EngineSizes(
        dit=sizes.dit,
        vae=sizes.vae,
        text=sizes.text,
        window=sizes.rollout.window,
        steps=len(sizes.rollout.steps),
    )
    whole = shot_flops(engine, sizes.size, 0, sizes.chunks, is_first=False)
    return whole - call_flops(sizes, "text")
