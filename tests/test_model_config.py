"""One configuration: its JSON, its digests, and what it says of film sizes."""

import dataclasses
import json

import pytest

from shotstream_jax.model_config import ModelConfig, RolloutConfig
from shotstream_jax.models.cache import Window
from shotstream_jax.presets import PRESETS, TINY


@pytest.mark.parametrize("name", PRESETS)
def test_a_model_survives_its_json(name):
    stored = json.loads(json.dumps(PRESETS[name].to_json()))
    assert ModelConfig.from_json(stored) == PRESETS[name]


def test_digests_of_older_checkpoints_stay():
    assert TINY.digest() == "f35e8914ebd68339"
    rollout = dataclasses.replace(TINY.rollout, trained_chunks=2)
    assert dataclasses.replace(TINY, rollout=rollout).digest() != TINY.digest()


def test_rollout_settings_survive_their_json():
    stored = json.loads(json.dumps(TINY.rollout.to_json()))
    assert RolloutConfig.from_json(stored) == TINY.rollout
    assert RolloutConfig.from_json(None) == RolloutConfig()
    trained = dataclasses.replace(TINY.rollout, trained_chunks=5)
    assert RolloutConfig.from_json(trained.to_json()) == trained
    with pytest.raises(ValueError, match="not understood"):
        RolloutConfig.from_json({"window": {"chunks": 3}})


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
