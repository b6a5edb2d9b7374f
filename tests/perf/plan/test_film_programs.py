"""What is planned is what films: the same functions, called with the same shapes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.data import encode
from shotstream_jax.models.cache import Window
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.perf.plan.film_programs import Program, film_programs, filming
from shotstream_jax.perf.random_networks import random_networks
from shotstream_jax.rollout import programs
from shotstream_jax.rollout.approximate import Approximation
from shotstream_jax.rollout.engine import Engine
from shotstream_jax.rollout.stream import Camera, plan_for, plan_story
from shotstream_jax.sharding import make_mesh
from shotstream_jax.story import Defaults, Shot, Story
from tests.perf.conftest import SHAPE

ROLLOUT = {id(value) for value in vars(programs).values() if isinstance(value, jax.stages.Wrapped)}
"""The jitted functions of the one list."""

POLICIES = {
    "exact": {},
    "merged passes": {"merged_passes": True},
    "no clean passes": {"approximation": Approximation(clean_pass=False)},
    "latent context": {"approximation": Approximation(decoded_context=False)},
    "8 bits": {"approximation": Approximation(int8_cache=True, int8_weights=True)},
}


def signature(function: Any, inputs: Any, settings: Mapping[str, Any]) -> Any:
    """A function, the structure of its arguments, and the shape or static value of each."""
    leaves, tree = jax.tree.flatten((tuple(inputs), dict(settings)))
    return id(function), tree, tuple(_leaf(leaf) for leaf in leaves)


def _leaf(leaf: Any) -> Any:
    if isinstance(leaf, int):
        return (), jnp.dtype("int32"), True
    if isinstance(leaf, type) or not hasattr(leaf, "shape"):
        return leaf
    return leaf.shape, jnp.dtype(leaf.dtype), getattr(leaf, "weak_type", False)


def planned(program: Program) -> Any:
    return signature(program.function, program.arguments.values(), program.settings)


def same_shape_on_one_device(**changes: Any) -> tuple[FilmShape, Any]:
    shape, mesh = dataclasses.replace(SHAPE, **changes), make_mesh(jax.devices()[:1])
    return shape, mesh


class Recorder:
    """A `run` that notes every call of a program of the one list."""

    def __init__(self):
        self.calls: set[Any] = set()

    def __call__(self, part, program, *inputs, **settings):
        if id(program) in ROLLOUT:
            self.calls.add(signature(program, inputs, settings))
        return program(*inputs, **settings)


def story(shape: FilmShape, *shots: Shot) -> Story:
    defaults = Defaults(size=shape.size, chunks=shape.chunks)
    return Story(title="t", shots=shots, defaults=defaults)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_film_of_cuts_calls_what_is_planned_and_nothing_else(policy):
    shape, mesh = same_shape_on_one_device(**POLICIES[policy])
    recorder, networks = Recorder(), random_networks(shape, mesh)
    camera = Camera(networks, shape.size, run=recorder)
    for plan in plan_story(networks, story(shape, Shot(caption="a"), Shot(caption="b"))):
        for _ in camera.film(plan):
            pass
    built = film_programs(shape, mesh)
    assert recorder.calls == {planned(built[name]) for name in filming(shape)}


def test_the_programs_of_other_takes_are_planned_too():
    """A take in one program, and one that is longer than trained, whose positions are turned."""
    shape, mesh = same_shape_on_one_device()
    recorder, networks = Recorder(), random_networks(shape, mesh)
    engine = Engine(networks, shape.size, run=recorder)
    plan = plan_for(networks, story(shape, Shot(caption="a")), 0)
    noise = [engine.noise(plan, chunk) for chunk in range(shape.chunks)]
    engine.whole_take(engine.cut(plan, []), noise)
    trained = shape.config.rollout.shot_chunks
    turned = dataclasses.replace(plan, positions="turned", chunks=trained + 1)
    state = engine.cut(turned, [])
    for chunk in range(trained + 1):
        state, _ = engine.next_chunk(state, engine.noise(turned, chunk))
    built = film_programs(shape, mesh)
    assert {planned(built[name]) for name in ("shot", "turn-back")} <= recorder.calls


def test_captions_are_encoded_by_the_program_that_is_planned(monkeypatch):
    shape, mesh = same_shape_on_one_device()
    text, calls = film_programs(shape, mesh)["text"], []
    assert text.function is encode.encode_caption_tokens

    def record(*inputs: Any, **settings: Any) -> Any:
        calls.append(signature(text.function, inputs, settings))
        return text.function(*inputs, **settings)

    monkeypatch.setattr(encode, "encode_caption_tokens", record)
    random_networks(shape, mesh).encode_text(["a caption"])
    assert calls == [planned(text)]


def test_every_program_of_the_one_list_is_planned():
    built = film_programs(*same_shape_on_one_device())
    outside = {id(encode.encode_caption_tokens)}
    # Empty caches are allocated, not filmed with.
    assert {id(p.function) for p in built.values()} - outside == ROLLOUT - {id(programs.new_cache)}


def test_all_programs_lower_and_write_over_their_caches():
    built = film_programs(*same_shape_on_one_device())
    for program in built.values():
        args, _ = program.lower().args_info
        donated = {
            name
            for name, info in zip(_traced(program), args, strict=True)
            if all(leaf.donated for leaf in jax.tree.leaves(info))
        }
        reads_only = {"chunk", "decode-first"}
        caches = program.arrays.keys() & {"cache", "past"}
        assert donated == (set() if program.name in reads_only else caches), program.name


def _traced(program: Program) -> list[str]:
    return list(program.arrays)


@pytest.mark.parametrize("changes", [{"size": (480, 830)}, {"size": (6, 16)}, {"chunks": 0}])
def test_shapes_that_do_not_divide_are_refused(changes):
    with pytest.raises(ValueError, match=r"try \d+|0 chunks"):
        dataclasses.replace(SHAPE, **changes)


def test_shapes_of_caches_follow_the_window():
    config = dataclasses.replace(
        SHAPE.config,
        rollout=dataclasses.replace(
            SHAPE.config.rollout, window=Window(chunk=2, context=5, local=6)
        ),
    )
    shape, mesh = same_shape_on_one_device(config=config)
    cache = film_programs(shape, mesh)["commit"].arguments["cache"]
    assert cache.kv.key.shape[2] == (5 + 6) * shape.frame_tokens
    assert np.prod(shape.grid) == shape.positions
