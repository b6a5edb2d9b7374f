"""Programs compiled for chips that are not here; full-size ones: `pytest -m slow -s`."""

import dataclasses
import importlib.util
import itertools
import json

import jax
import jax.numpy as jnp
import pytest

from shotstream_jax.models.compute import default_compute
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.perf.plan.compile import Plan, collective_bytes, plan_program
from shotstream_jax.perf.plan.film import project_film, project_program, resident_memory
from shotstream_jax.perf.plan.film_cost import film_flops, program_flops
from shotstream_jax.perf.plan.film_programs import Program, film_programs, filming
from shotstream_jax.perf.targets import CHIPS, Target, find_target, target_mesh
from shotstream_jax.presets import PRESETS
from shotstream_jax.sharding import make_mesh, replicated
from tests.perf.conftest import with_dit

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="pip install -e .[aot] brings the compiler"
)


def on(shape, target_name, split=""):
    """A shape as it is computed on a target, the target, and a mesh of it."""
    target = find_target(target_name)
    mesh = target_mesh(target, shape.config.dit.heads, split)
    return (
        dataclasses.replace(shape, compute=film_compute(shape.config.dit.head_dim, mesh)),
        target,
        mesh,
    )


def film_compute(head_dim, mesh):
    return default_compute(head_dim, jnp.bfloat16, "tpu", mesh)


def planned(shape, target, mesh, name):
    return plan_program(film_programs(shape, mesh)[name], target, mesh, program_flops(shape, name))


def plan(**changes):
    return Plan(
        **{
            "program": "p",
            "target": "t",
            "mesh": {},
            "fits": True,
            "memory": {"temporaries": 5, "outputs": 2, "code": 1},
            "argument_bytes": {"dit": 100, "cache": 1000},
            "collectives": {},
            "flops": {"analytic": 10**12},
            "bytes_accessed": 1,
            "compile_seconds": 0.0,
            **changes,
        }
    )


def test_arguments_are_held_once_and_workspaces_take_turns():
    commit = plan(
        memory={"temporaries": 40, "outputs": 1, "code": 1}, argument_bytes={"dit": 100, "vae": 7}
    )
    assert resident_memory({"chunk": plan(), "commit": commit}) == {
        "arguments": 1107,
        "temporaries": 40,
        "outputs": 1,
        "code": 2,
        "peak": 1150,
    }


def test_what_a_program_makes_is_not_there_before():
    first = plan(
        memory={"temporaries": 30, "outputs": 50, "code": 1}, argument_bytes={"latents": 3}
    )
    later = plan(memory={"temporaries": 40, "outputs": 1, "code": 1}, argument_bytes={"past": 50})
    found = resident_memory({"decode-first": first, "decode": later})
    assert found == {"arguments": 53, "temporaries": 40, "outputs": 1, "code": 2, "peak": 96}


def test_collectives_are_read_from_the_compiled_text():
    text = """
      %a = bf16[2,128]{1,0} all-gather(%x), dimensions={1}
      %b = f32[8]{0} all-reduce-start(%y), to_apply=%add
      %c = f32[8]{0} add(%y, %y)
    """
    assert collective_bytes(text) == {"all-gather": 512, "all-reduce": 32}


@needs_compiler
def test_a_small_model_is_planned_for_a_chip_that_is_not_here(one_head):
    shape, target, mesh = on(one_head, "v5e:1x1")
    found = planned(shape, target, mesh, "commit")
    assert shape.compute.attention == "splash"
    assert found.fits
    assert found.memory["limit"] == CHIPS["v5e"].memory
    parts = ("arguments", "temporaries", "outputs", "code")
    assert found.memory["peak"] == sum(found.memory[part] for part in parts) < 1 << 30
    # Keys and values, two bytes each: 7 frames of 32 tokens, and one caption.
    slots = 7 * 32 + shape.config.dit.text_tokens
    assert (
        found.argument_bytes["cache"]
        == 2 * 2 * shape.config.dit.layers * slots * shape.config.dit.dim
    )
    # The cache is written in place: what comes out is what went in.
    assert found.memory["outputs"] < found.argument_bytes["cache"] / 10
    assert found.flops["analytic"] == program_flops(shape, "commit")
    assert 0 < found.flops["compiler"] < found.flops["analytic"]
    assert found.bytes_accessed is not None
    assert found.bytes_accessed > 0


@needs_compiler
def test_the_kernel_is_split_over_devices_by_heads(shape):
    """A kernel that the compiler were left to split would not compile."""
    wide = with_dit(shape, dim=512, heads=4)
    for target_name, split in (("v5e:2x2", "tensor=4"), ("v5e:2x2", "fsdp=2,tensor=2")):
        split_shape, target, mesh = on(wide, target_name, split)
        assert split_shape.compute.attention == "splash"
        assert planned(split_shape, target, mesh, "commit").fits


@needs_compiler
def test_a_split_model_says_what_moves_between_devices(shape):
    shape, target, mesh = on(shape, "v5e:2x2", "tensor=2,fsdp=2")
    found = planned(shape, target, mesh, "commit")
    assert (shape.compute.attention, found.mesh) == ("xla", {"fsdp": 2, "tensor": 2})
    assert found.collectives["all-reduce"] > 0
    whole = shape.config.dit.text_tokens + 7 * shape.frame_tokens
    assert (
        found.argument_bytes["cache"]
        == 2 * 2 * shape.config.dit.layers * whole * shape.config.dit.dim // 2
    )


@needs_compiler
def test_what_does_not_fit_is_a_finding():
    target = find_target("v5e:1x1")
    mesh = make_mesh(target.devices)
    huge = jax.ShapeDtypeStruct((20 << 30,), jnp.int8, sharding=replicated(mesh))
    program = Program(name="huge", function=jax.jit(lambda x: x + 1), arguments={"x": huge})
    found = plan_program(program, target, mesh, 20 << 30)
    assert not found.fits
    assert "Ran out of memory" in found.problem
    assert "\n" not in found.problem
    # What goes in, and as much that comes out.
    assert found.memory["arguments"] == 20 << 30
    assert found.memory["peak"] == 40 << 30 > found.memory["limit"]


@needs_compiler
def test_a_film_holds_everything_at_once(shape, monkeypatch):
    """Two of its programs will do: each takes a compiler for TPU seconds."""
    some = ("commit", "decode")
    monkeypatch.setattr("shotstream_jax.perf.plan.film.filming", lambda shape: some)
    shape, target, mesh = on(shape, "v6e:1x1")
    film = project_film(shape, target, mesh, share_of_peak=0.5)
    assert film.fits
    assert set(film.programs) == set(some) < set(filming(shape))
    assert {"dit", "vae", "cache", "past"} <= film.argument_bytes.keys()
    assert "text" not in film.argument_bytes
    assert film.memory["arguments"] == sum(film.argument_bytes.values())
    assert film.memory["peak"] > max(plan.memory["peak"] for plan in film.programs.values())
    assert film.flops == film_flops(shape)
    seconds = film_flops(shape) / (0.5 * CHIPS["v6e"].flops)
    assert film.projection.seconds == pytest.approx(seconds)
    assert film.projection.frames_per_second == pytest.approx(shape.video_frames / seconds)
    assert "not measured: 50% of the peak of 918" in film.projection.assumption


def test_a_film_that_is_too_large_together_does_not_fit(shape, monkeypatch):
    """Each program fits by itself."""
    half = {"dit": 5 << 30, "vae": 6 << 30, "cache": 7 << 30}
    turns = itertools.cycle(half.items())
    monkeypatch.setattr(
        "shotstream_jax.perf.plan.film.plan_program",
        lambda *_: plan(argument_bytes=dict([next(turns)])),
    )
    target = Target(name="t", chip=CHIPS["v5e"], devices=tuple(jax.devices()[:1]))
    film = project_film(shape, target, make_mesh(target.devices), share_of_peak=0.4)
    assert film.memory["arguments"] == 18 << 30
    assert not film.fits


def test_projections_say_what_they_rest_on(shape):
    target = Target(name="t", chip=CHIPS["v5e"], devices=())
    how = {"devices": 2, "share_of_peak": 0.25}
    chunk = project_program(plan(program="chunk"), shape, target, **how)
    assert chunk.seconds == pytest.approx(1e12 / (0.25 * 197e12 * 2))
    # Two latent frames of two video frames each.
    assert chunk.frames_per_second == pytest.approx(4 / chunk.seconds)
    assert "25% of the peak of 197 bfloat16 TFLOP/s on each of 2 devices" in chunk.assumption
    # Reading the arguments takes longer than computing with them.
    large = plan(program="commit", argument_bytes={"dit": 819 * 10**9})
    slow = project_program(large, shape, target, **how)
    assert (slow.seconds, slow.frames_per_second) == (pytest.approx(1.0), None)
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="more than 0 and at most 1"):
            project_program(plan(), shape, target, devices=1, share_of_peak=share)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("target", ["v5e:1x1", "v6e:1x1"])
def test_full_size_chunk_and_decoder_step_compile_for_tpu(target, capsys):
    """480 x 832, 27 frames of keys, bfloat16; prints what the compiler says of memory."""
    shape, found, mesh = on(FilmShape(config=PRESETS["wan-1.3b"]), target)
    plans = [
        planned(shape, found, mesh, name) for name in ("chunk", "commit", "decode-first", "decode")
    ]
    with capsys.disabled():
        for each in plans:
            print(json.dumps(dataclasses.asdict(each)))  # noqa: T201 - the figures are the point
    assert all(each.fits for each in plans)
