"""Operations of calls, programs and shots: as the compiler counts them, and as an engine calls."""

import dataclasses

import jax
import pytest

from shotstream_jax.model_config import ModelConfig, RolloutConfig
from shotstream_jax.models.cache import Window
from shotstream_jax.models.configs import UMT5_XXL, WAN_1_3B, WAN_VAE
from shotstream_jax.perf.bench.run import BenchSettings, bench_story
from shotstream_jax.perf.bench.split import split
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.perf.plan.film_cost import call_flops, film_flops, program_flops, shot_flops
from shotstream_jax.perf.plan.film_programs import film_programs
from shotstream_jax.perf.random_networks import random_networks
from shotstream_jax.presets import PRESETS
from shotstream_jax.rollout.approximate import Approximation
from shotstream_jax.sharding import make_mesh

RELEASE = FilmShape(config=PRESETS["wan-1.3b"])


@pytest.mark.parametrize(
    ("program", "layers"), [("chunk", 1), ("text", 1), ("commit", 2), ("context", 2)]
)
def test_transformers_agree_with_the_compiler(program, layers):
    """One turn of every loop, since the compiler counts its body once: one layer and one step.

    A pass for keys loops over all layers but the last.
    """
    shape = FilmShape(
        config=ModelConfig(
            dit=dataclasses.replace(WAN_1_3B, layers=layers),
            vae=WAN_VAE,
            text=dataclasses.replace(UMT5_XXL, layers=1, vocab=512),
            rollout=RolloutConfig(window=Window(local=6), steps=(1000,)),
        ),
        size=(96, 160),
        chunks=2,
    )
    lowered = film_programs(shape, make_mesh(jax.devices()[:1]))[program].lower()
    expected = program_flops(shape, program)
    assert lowered.cost_analysis()["flops"] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"merged_passes": True},
        {"approximation": Approximation(clean_pass=False)},
        {"approximation": Approximation(decoded_context=False)},
    ],
    ids=str,
)
def test_a_shot_costs_what_the_calls_of_an_engine_cost(shape, changes):
    """The first shot sees nothing; the second, at a cut, sees the first."""
    shape = dataclasses.replace(shape, **changes)
    networks = random_networks(shape, make_mesh(jax.devices()[:1]))
    story = bench_story(shape, BenchSettings(shots=2), "counted")
    calls, _ = split(networks, shape, story, lambda chunks: None)
    first, second = (shot_flops(shape, is_first=is_first) for is_first in (True, False))
    assert sum(call.flops for call in calls) == first + second
    assert film_flops(shape) == second - call_flops(shape, "text")


def test_a_continued_shot_pays_for_the_clean_pass_of_the_chunk_before(shape):
    cut, on = (shot_flops(shape, filmed, is_first=True) for filmed in (0, 2))
    more = sum(call_flops(shape, "denoise", 2 + c) for c in range(shape.chunks))
    less = sum(call_flops(shape, "denoise", c) for c in range(shape.chunks))
    clean = sum(call_flops(shape, "clean pass", 1 + c) for c in range(shape.chunks))
    paid = sum(call_flops(shape, "clean pass", c) for c in range(shape.chunks - 1))
    begun = call_flops(shape, "decode", begins=True) - call_flops(shape, "decode")
    context = call_flops(shape, "context pass")
    assert on - cut == more - less + clean - paid - context - begun


def test_a_call_grows_with_the_chunk_until_the_window_is_full():
    costs = [call_flops(RELEASE, "denoise", chunk) for chunk in range(9)]
    assert costs == sorted(costs)
    assert len(set(costs[:7])) == 7
    assert costs[6] == costs[7] == costs[8]
    assert call_flops(RELEASE, "to video") == 0


def test_programs_are_made_of_calls():
    one = {name: program_flops(RELEASE, name) for name in ("decode-first", "decode", "shot")}
    assert program_flops(RELEASE, "chunk") == call_flops(RELEASE, "denoise", 6)
    assert one["decode-first"] == call_flops(RELEASE, "decode", begins=True) < one["decode"]
    clean = sum(call_flops(RELEASE, "clean pass", chunk) for chunk in range(6))
    assert one["shot"] == sum(call_flops(RELEASE, "denoise", c) for c in range(7)) + clean
    assert program_flops(RELEASE, "video") == 0
