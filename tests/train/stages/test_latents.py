"""Encoding of films: what is stored of every shot."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.checkpoints.manager import save_checkpoint
from shotstream_jax.data.latent_films import LatentFilms
from shotstream_jax.data.sources import RecordSource
from shotstream_jax.model_config import CheckpointConfig
from shotstream_jax.models.vae import encode, encode_images, frames_to_pixels, init_vae
from shotstream_jax.storyworld.builder import StoryWorld, StoryWorldConfig
from shotstream_jax.train.engine.dataset_job import build_dataset
from tests.train import miniature

WIDE, LONG = 80, 9


@pytest.fixture(scope="module")
def params():
    return init_vae(jax.random.key(0), miniature.VAE)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Two films of two shots, larger and longer than those that the miniature paints."""
    sizes = StoryWorldConfig(
        height=miniature.HEIGHT, width=WIDE, video_frames=LONG, shots=2, train=2, validation=1
    )
    builder = StoryWorld(config=sizes, data_dir=tmp_path_factory.mktemp("tfds"))
    builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


def test_films_on_disk_are_encoded_in_their_own_size(params, records, tmp_path):
    config = CheckpointConfig(networks={"vae": miniature.VAE}, weights="trained")
    save_checkpoint(tmp_path / "vae", {"vae": params}, config)
    job = miniature.latents(
        tmp_path, vae=tmp_path / "vae", records=records, samples=2, output=tmp_path / "latents"
    )
    assert build_dataset(job).ended == "finished"

    stored, films = LatentFilms(job.output), RecordSource(records)
    assert tuple(stored.facts["picture"]) == (miniature.HEIGHT, WIDE)
    frames = stored[0].reference_frames
    assert frames[-1] == LONG - 1

    @jax.jit
    def encoded(shot):
        pixels = frames_to_pixels(shot[None])
        pictures = encode_images(params, miniature.VAE, pixels[:, jnp.asarray(frames)])
        return encode(params, miniature.VAE, pixels)[0], pictures[0]

    for index in range(2):
        film = films[index]
        assert stored[index].captions == film.captions
        found = zip(stored[index].clips, stored[index].references, strict=True)
        for shot, kept in enumerate(found):
            for half, exact in zip(kept, encoded(film.frames(shot)), strict=True):
                np.testing.assert_allclose(half, exact, rtol=2e-3, atol=1e-4)
