"""What parts and programs cost, by the sizes alone and as the compiler counts them."""

import dataclasses

import jax
import pytest

from shotstream_jax.model_config import RolloutConfig
from shotstream_jax.models.cache import Window
from shotstream_jax.models.compute import Compute
from shotstream_jax.models.dit_config import WAN_1_3B
from shotstream_jax.models.text_encoder import UMT5_XXL, TextEncoderConfig
from shotstream_jax.models.vae_config import WAN_VAE, VAEConfig
from shotstream_jax.perf.plan.cost import dit_flops, keys_flops
from shotstream_jax.perf.plan.part_cost import call_flops, film_flops, program_flops
from shotstream_jax.perf.plan.programs import FilmSizes, film_programs
from shotstream_jax.sharding import make_mesh

TERA = 1e12


def released(**changes) -> FilmSizes:
    return FilmSizes(
        **{
            "dit": WAN_1_3B,
            "vae": WAN_VAE,
            "text": TextEncoderConfig(),
            "rollout": RolloutConfig(),
            "compute": Compute(),
            **changes,
        }
    )


def compiler_flops(sizes: FilmSizes, name: str) -> float:
    """As XLA counts them, once for the body of a loop; nothing is compiled or allocated."""
    program = film_programs(sizes, make_mesh(jax.devices()[:1]))[name]
    return program.lower().cost_analysis()["flops"]


@pytest.mark.parametrize("program", ["chunk", "commit", "context", "text"])
def test_transformers_agree_with_the_compiler(program):
    """One layer and one step, since the compiler counts the body of a loop once.

    It counts both branches of the last layer, of which a pass for keys takes the short one.
    """
    sizes = released(
        dit=dataclasses.replace(WAN_1_3B, layers=1),
        text=dataclasses.replace(UMT5_XXL, layers=1, vocab=512),
        rollout=RolloutConfig(window=Window(local=6), steps=(1000,)),
        size=(96, 160),
        chunks=2,
    )
    tokens = sizes.frame_tokens
    expected = {
        "chunk": call_flops(sizes, "denoise", 1),
        "commit": dit_flops(sizes.dit, 3 * tokens, 12 * tokens),
        "context": dit_flops(sizes.dit, 6 * tokens, 6 * tokens),
        "text": call_flops(sizes, "text"),
    }
    assert compiler_flops(sizes, program) == pytest.approx(expected[program], rel=0.02)


@pytest.mark.parametrize("vae", [WAN_VAE, VAEConfig(patch_size=2)], ids=["wan", "patches"])
@pytest.mark.parametrize("program", ["decode-first", "decode", "encode"])
def test_the_autoencoder_agrees_with_the_compiler(program, vae):
    """The compiler leaves out taps outside the picture; a larger one would attend in pieces."""
    side = 80 * vae.spatial_stride
    sizes = released(vae=vae, size=(side, side))
    assert compiler_flops(sizes, program) == pytest.approx(program_flops(sizes)[program], rel=0.02)


def test_a_pass_for_keys_leaves_out_the_end_of_the_last_layer():
    one_less = dataclasses.replace(WAN_1_3B, layers=WAN_1_3B.layers - 1)
    last = 2 * 3 * WAN_1_3B.dim**2 * 100
    assert keys_flops(WAN_1_3B, 100, 700) == dit_flops(one_less, 100, 700) + last


def test_a_call_grows_with_the_chunk_until_the_window_is_full():
    sizes = released()
    costs = [call_flops(sizes, "denoise", chunk) for chunk in range(9)]
    assert costs[0] / TERA == pytest.approx(4 * 24.26, rel=1e-3)
    assert costs[6] / TERA == pytest.approx(4 * 48.48, rel=1e-3)
    assert costs == sorted(costs)
    assert costs[6] == costs[7] == costs[8]
    assert call_flops(sizes, "to video") == 0


def test_programs_are_made_of_calls():
    sizes = released()
    flops = program_flops(sizes)
    assert flops["chunk"] == call_flops(sizes, "denoise", 6)
    assert flops["decode-first"] == call_flops(sizes, "decode", begins=True) < flops["decode"]
    clean = sum(call_flops(sizes, "clean pass", chunk) for chunk in range(6))
    assert flops["shot"] == sum(call_flops(sizes, "denoise", c) for c in range(7)) + clean


def test_a_released_shot_costs_what_was_published():
    """Published: 1605 TFLOP, 13.1 less where a flat first frame meets no temporal taps."""
    assert film_flops(released()) / TERA == pytest.approx(1605 - 13.1, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": (480, 830)}, "830 .* try 832"),
        ({"size": (8, 16)}, "8 .* try 16"),
        ({"chunks": 0}, "0"),
    ],
)
def test_films_that_do_not_divide_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        released(**changes)
