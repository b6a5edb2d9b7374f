"""Programs compiled for chips that are not here; full-size ones: `pytest -m slow -s`."""

import dataclasses
import importlib.util
import json

import jax.numpy as jnp
import pytest

from shotstream_jax.config import PRESETS, TINY
from shotstream_jax.models.cache import Window
from shotstream_jax.models.compute import Compute
from shotstream_jax.perf.plan import Plan, collective_bytes, plan_program, resident_bytes
from shotstream_jax.perf.programs import FilmSizes, film_programs
from shotstream_jax.perf.targets import CHIPS, find_target
from shotstream_jax.rollout.chunk import RolloutConfig
from shotstream_jax.sharding import film_mesh

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="pip install -e .[aot] brings the compiler"
)


def sizes_of(config, size, rollout=None):
    return FilmSizes(
        dit=config.dit,
        vae=config.vae,
        text=config.text,
        rollout=rollout or config.rollout,
        compute=Compute(dtype=jnp.bfloat16, attention="splash"),
        size=size,
    )


def plans(sizes, target_name, names):
    target = find_target(target_name)
    programs = film_programs(sizes, film_mesh(sizes.dit.heads, target.devices))
    return {name: plan_program(programs[name], target) for name in names}


def plan(**memory):
    return Plan(
        program="p",
        target="t",
        fits=True,
        memory={"temporaries": 5, "outputs": 2, "code": 1, **memory},
        argument_bytes={"dit": 100, "text": 1000},
        collectives={},
        compile_seconds=0.0,
    )


def test_arguments_are_held_once_and_workspaces_take_turns():
    chunk, commit = plan(), plan(temporaries=40)
    together = {"chunk": chunk, "commit": commit}
    assert resident_bytes(together, text_on_host=True) == 100 + 42 + 2
    assert resident_bytes(together, text_on_host=False) == 1100 + 42 + 2


def test_collectives_are_read_from_the_compiled_text():
    text = """
      %a = bf16[2,128]{1,0} all-gather(%x), dimensions={1}
      %b = f32[8]{0} all-reduce-start(%y), to_apply=%add
      %c = f32[8]{0} add(%y, %y)
    """
    assert collective_bytes(text) == {"all-gather": 512, "all-reduce": 32}


@pytest.mark.parametrize("name", ["gpu9", "v6e:7x9"])
def test_unknown_targets_are_refused(name):
    with pytest.raises(ValueError, match=name):
        find_target(name)


@needs_compiler
def test_the_tiny_model_is_planned_for_a_chip_that_is_not_here():
    config = dataclasses.replace(TINY, dit=dataclasses.replace(TINY.dit, dim=128, heads=1))
    rollout = RolloutConfig(window=Window(local=6))
    sizes = sizes_of(config, (32, 48), rollout)
    [found] = plans(sizes, "v5e:1x1", ["commit"]).values()
    assert found.fits
    assert found.memory["limit"] == CHIPS["v5e"].memory
    # Keys and values, two bytes each: 12 frames of 6 tokens, and one caption.
    slots = 12 * 6 + config.dit.text_tokens
    assert found.argument_bytes["cache"] == 2 * 2 * config.dit.layers * slots * config.dit.dim
    # The cache is written in place: what comes out is what went in.
    assert found.memory["outputs"] < found.argument_bytes["cache"] / 10


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("target", ["v5e:1x1", "v6e:1x1"])
def test_full_size_chunk_and_decoder_step_compile_for_tpu(target, capsys):
    """480 x 832, 27 frames of keys, bfloat16; prints what the compiler says of memory."""
    sizes = sizes_of(PRESETS["wan-1.3b"], (480, 832))
    found = plans(sizes, target, ["chunk", "commit", "decode-first", "decode"])
    with capsys.disabled():
        for each in found.values():
            print(json.dumps(dataclasses.asdict(each)))  # noqa: T201 - the figures are the point
    assert all(each.fits for each in found.values())
