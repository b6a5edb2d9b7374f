"""One configuration: its JSON, its digests, and what it says of film sizes."""

import dataclasses
import json

import pytest

from shotstream_jax.model_config import CheckpointConfig, LoRAConfig, ModelConfig, RolloutConfig
from shotstream_jax.models.cache import Window
from shotstream_jax.presets import PRESETS, TINY

WHOLE = CheckpointConfig(
    networks={"dit": TINY.dit, "text": TINY.text, "vae": TINY.vae},
    lora=LoRAConfig(rank=4, alpha=2.0),
    rollout=TINY.rollout,
    weights="trained",
    training={"stage": "base", "after": []},
)


def with_rollout(model, **changes):
    return dataclasses.replace(model, rollout=dataclasses.replace(model.rollout, **changes))


def stored(config=WHOLE):
    return json.loads(json.dumps(config.to_json()))


def changed(place, value):
    """The document of a whole checkpoint with one value of it put in, or taken out by `None`."""
    document = stored()
    *parents, last = place.split(".")
    part = document
    for name in parents:
        part = part[name]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return document


def refusal(document):
    with pytest.raises(ValueError, match=r"^film/config\.json") as refused:
        CheckpointConfig.from_json(document, "film/config.json")
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", PRESETS)
def test_a_model_survives_its_json(name):
    for model in (PRESETS[name], with_rollout(PRESETS[name], trained_chunks=5)):
        assert ModelConfig.from_json(json.loads(json.dumps(model.to_json()))) == model


def test_digests_of_older_checkpoints_stay():
    assert TINY.digest() == "f35e8914ebd68339"
    assert with_rollout(TINY, trained_chunks=2).digest() != TINY.digest()


def test_chunks_of_a_training_shot_fill_the_window_unless_stated():
    rollout = RolloutConfig(window=Window(chunk=2, context=4, local=8))
    assert rollout.trained_chunks is None
    assert rollout.shot_chunks == 4
    assert dataclasses.replace(rollout, trained_chunks=9).shot_chunks == 9
    with pytest.raises(ValueError, match="trained_chunks 0"):
        RolloutConfig(trained_chunks=0)


def test_film_sizes_are_counted_in_patches_of_latents():
    assert TINY.latent_grid((48, 80)) == (12, 20)
    assert TINY.frame_tokens((48, 80)) == 3 * 5
    assert PRESETS["wan-1.3b"].frame_tokens((480, 832)) == 1560
    with pytest.raises(ValueError, match="height of 40 pixels is not a multiple of 16; try 32"):
        TINY.latent_grid((40, 80))
    with pytest.raises(ValueError, match="width of 0 pixels"):
        TINY.frame_tokens((48, 0))


@pytest.mark.parametrize("lacking", [(), ("lora",), ("rollout",), ("lora", "rollout")])
@pytest.mark.parametrize("names", [("dit", "text", "vae"), ("vae",), ("text",)])
def test_a_checkpoint_of_some_networks_survives_its_json(names, lacking):
    networks = {name: WHOLE.networks[name] for name in names}
    config = dataclasses.replace(WHOLE, networks=networks, **dict.fromkeys(lacking))
    assert CheckpointConfig.from_json(stored(config), "here") == config
    assert list(stored(config)["networks"]) == list(config.items)


def test_a_checkpoint_is_a_model_if_it_holds_all_networks():
    assert WHOLE.model() == TINY
    assert dataclasses.replace(WHOLE, rollout=None).model().rollout == RolloutConfig()
    alone = CheckpointConfig(networks={"vae": TINY.vae}, weights="trained")
    assert alone.network("vae") == TINY.vae
    with pytest.raises(ValueError, match="holds vae and no dit; convert again"):
        alone.model()


def test_fields_that_the_first_checkpoints_lack_are_filled_in():
    document = changed("networks.dit.shot_phase", None)
    del document["networks"]["vae"]["patch_size"]
    assert CheckpointConfig.from_json(document, "here") == WHOLE


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("format", "other", "another program's"),
        ("version", 2, "version 2 and 1 is read"),
        ("networks", [], "does not describe networks"),
        ("weights", "borrowed", "does not describe networks and weights"),
        ("training", 3, "does not describe networks"),
        ("notes", "mine", "has a field 'notes' that is not known"),
        ("networks.audio", {}, "a network 'audio' that is not known"),
        ("networks.dit.experts", 2, 'networks.dit has a field "experts" that is not known'),
        ("networks.dit.eps", 1e-5, 'networks.dit has a field "eps" that is not known'),
        ("networks.vae.base_channels", None, "networks.vae has no base_channels"),
        ("networks.text", [1], r"networks.text is [1] and must be an object"),
        ("networks.dit.dim", "192", 'networks.dit.dim is "192" and must be a whole number'),
        ("networks.dit.dim", 192.0, "networks.dit.dim is 192.0 and must be a whole number"),
        ("networks.dit.layers", True, "networks.dit.layers is true and must be a whole number"),
        ("networks.dit.shot_phase", [], "shot_phase is [] and must be a finite number"),
        ("networks.dit.patch", 4, "networks.dit.patch is 4 and must be a list"),
        ("networks.dit.patch", [4], "networks.dit.patch has 1 values and must have 2"),
        ("networks.dit.patch", [4, [4]], "networks.dit.patch[1] is [4] and must be a whole"),
        ("networks.vae.temporal_downsample", [1, True], "[0] is 1 and must be true or false"),
        ("networks.dit.heads", 0, "networks.dit: heads 0 must be at least 1"),
        ("networks.dit.patch", [4, 0], "networks.dit: patch (4, 0) must be at least 1"),
        ("networks.dit.layers", 10**9, "networks.dit.layers 1000000000 is above 1000, the most"),
        ("networks.dit.text_tokens", 10**9, "networks.dit.text_tokens 1000000000 is above"),
        ("networks.text.vocab", 10**12, "networks.text.vocab 1000000000000 is above"),
        ("networks.vae.multipliers", [1, 2, 10**7], "vae.multipliers 10000000 is above"),
        ("rollout.window.context", 10**6, "rollout.window.context 1000000 is above 1024"),
        ("rollout.window.chunk", 0, "rollout.window: A chunk of 0 frames"),
        ("rollout.window.chunks", 3, 'rollout.window has a field "chunks"'),
        ("rollout.steps", [1000, 2000], "rollout: Few-step levels"),
        ("rollout.steps", "fast", 'rollout.steps is "fast" and must be a list'),
        ("rollout.shift", 0.0, "rollout: shift 0.0 must be positive"),
        ("rollout.trained_chunks", "2", 'trained_chunks is "2" and must be a whole number'),
        ("networks.lora.rank", 0, "networks.lora: rank 0 must be at least 1"),
    ],
)
def test_what_is_not_known_or_out_of_range_is_refused_by_name(place, value, message):
    assert message in refusal(changed(place, value))


def test_sizes_that_no_model_has_are_refused_wherever_they_are_from():
    with pytest.raises(ValueError, match=r"dit\.layers 1000000000 is above 1000"):
        dataclasses.replace(TINY, dit=dataclasses.replace(TINY.dit, layers=10**9))
