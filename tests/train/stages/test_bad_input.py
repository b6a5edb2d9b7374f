"""What a stage cannot begin with is said in one line: what is wrong, where, and both values."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from shotstream_jax.checkpoints.manager import TOKENIZER, save_checkpoint
from shotstream_jax.data.latent_films import LATENT_FILMS
from shotstream_jax.data.shards import Shards
from shotstream_jax.data.tokenizer import TOKENIZER_FILE, word_tokenizer
from shotstream_jax.model_config import CheckpointConfig
from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.text_encoder import init_text_encoder
from shotstream_jax.models.vae import init_vae
from shotstream_jax.storyworld.captions import VOCABULARY
from shotstream_jax.train.engine.pipeline import run
from shotstream_jax.train.engine.run_folder import describe
from shotstream_jax.train.engine.weights import measured_vae, training_facts
from tests.train import miniature


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Latents and a base model that were never trained, as if the stages before had been run."""
    root = tmp_path_factory.mktemp("begun")
    word_tokenizer(VOCABULARY, miniature.DIT.text_tokens).save(root / TOKENIZER)
    key = jax.random.key(0)
    save_checkpoint(
        root / "base" / "export",
        {
            "dit": jax.jit(init_dit, static_argnums=1)(key, miniature.DIT),
            "text": jax.jit(init_text_encoder, static_argnums=1)(key, miniature.TEXT),
            "vae": jax.jit(init_vae, static_argnums=1)(key, miniature.VAE),
        },
        CheckpointConfig(
            networks={"dit": miniature.DIT, "text": miniature.TEXT, "vae": miniature.VAE},
            rollout=miniature.ROLLOUT,
            weights="trained",
            training=training_facts("base", 2, 0),
        ),
        root / TOKENIZER / TOKENIZER_FILE,
    )
    write_latents(root / "latents")
    return root


def write_latents(folder, clip=(2, 4, 6, miniature.CHANNELS), shots=miniature.SHOTS):
    latents = Shards(folder, 2, 2)
    facts = {"kind": LATENT_FILMS, "clip": clip, "shots": shots, "video_frames": 5}
    latents.describe({**facts, "reference_frames": [0, 4]})
    latents.write(
        0,
        {
            "clips": np.zeros((2, shots, *clip), np.float16),
            "references": np.zeros((2, shots, 2, *clip[1:]), np.float16),
            "captions": np.full((2, shots), "a red star"),
        },
    )


def refusal(experiment) -> str:
    with pytest.raises((ValueError, OSError)) as refused:
        run(experiment)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_latents_that_are_not_there(begun, tmp_path):
    said = refusal(miniature.teacher(begun, output=tmp_path / "run", latents=tmp_path / "nowhere"))
    assert "nowhere holds no dataset that can be read" in said
    assert "shotstream train" in said


def test_latents_that_cannot_be_read(begun, tmp_path):
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "dataset.json").write_text('{"samples": 2, "si')
    said = refusal(miniature.teacher(begun, output=tmp_path / "run", latents=tmp_path / "torn"))
    assert "torn holds no dataset that can be read" in said


def test_latents_of_another_size(begun, tmp_path):
    write_latents(tmp_path / "wide", clip=(2, 4, 8, miniature.CHANNELS))
    said = refusal(miniature.teacher(begun, output=tmp_path / "run", latents=tmp_path / "wide"))
    assert "holds clips of (2, 4, 8, 4)" in said
    assert "the config says (2, 4, 6, 4)" in said


def test_films_of_fewer_shots_than_a_story(begun, tmp_path):
    write_latents(tmp_path / "short", shots=2)
    settings = {"generator": begun / "base" / "export", "teacher": begun / "base" / "export"}
    training = miniature.inter(
        begun, output=tmp_path / "run", latents=tmp_path / "short", **settings
    )
    assert "holds films of 2 shots and the config says shots 3" in refusal(training)


def test_turns_that_would_leave_shots_out(begun, tmp_path):
    training = miniature.inter(begun, output=tmp_path / "run", generator_every=6)
    said = refusal(training)
    assert "every 6 and stories of 3 shots have a common divisor" in said


def test_a_checkpoint_that_is_not_there(begun, tmp_path):
    training = miniature.teacher(begun, output=tmp_path / "run", start=tmp_path / "nowhere")
    assert "nowhere" in refusal(training)


def test_a_checkpoint_of_another_stage(begun, tmp_path):
    base = begun / "base" / "export"
    training = miniature.intra(begun, output=tmp_path / "run", generator=base, teacher=base)
    said = refusal(training)
    assert "was made by stage base" in said
    assert "is needed" in said


def test_a_checkpoint_of_other_sizes(begun, tmp_path):
    dit = dataclasses.replace(miniature.DIT, ffn_dim=32)
    wide = dataclasses.replace(miniature.MODEL, dit=dit)
    said = refusal(miniature.teacher(begun, output=tmp_path / "run", model=wide))
    assert "holds a dit with ffn_dim 16 and the config says 32" in said


def test_a_run_with_other_settings_is_not_gone_on_with(begun, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    begun_with = describe(miniature.latents(begun, output=folder, split="train"))
    (folder / "run.json").write_text(json.dumps(begun_with))
    making = miniature.latents(begun, output=folder, split="test")
    with pytest.raises(ValueError, match="split 'train', and it is 'test' now"):
        run(making, existing="resume")


def test_records_that_are_not_there(begun, tmp_path):
    save_checkpoint(
        tmp_path / "vae",
        {"vae": {"kernel": np.zeros(1)}},
        CheckpointConfig(networks={"vae": miniature.VAE}, weights="trained"),
    )
    making = miniature.latents(
        begun, output=tmp_path / "run", vae=tmp_path / "vae", records=tmp_path / "nowhere"
    )
    assert "nowhere holds no 'train' films" in refusal(making)


def test_levels_between_two_steps(begun, tmp_path):
    pairs = miniature.pairs(begun, output=tmp_path / "run", steps=3)
    assert "No step of 3 starts at level 500, which lies at step 1.5" in refusal(pairs)


def test_an_autoencoder_of_other_sizes(begun, tmp_path):
    """Whatever statistics its latents have: those are the checkpoint's."""
    statistics = {"latent_mean": (1.0,) * 4, "latent_std": (2.0,) * 4}
    vae = dataclasses.replace(miniature.VAE, **statistics)
    assert measured_vae(begun / "base" / "export", vae) == miniature.VAE
    assert measured_vae(tmp_path / "nowhere", vae) == vae
    wide = dataclasses.replace(miniature.VAE, base_channels=8)
    model = dataclasses.replace(miniature.MODEL, vae=wide)
    making = miniature.latents(
        begun, output=tmp_path / "run", vae=begun / "base" / "export", model=model
    )
    assert "holds a vae with base_channels 4 and the config says 8" in refusal(making)
