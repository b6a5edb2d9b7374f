"""A whole film: three shots, each seeing what the decoder made of those before it."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange

from shotstream_jax.checkpoints.names_vae import vae_names
from shotstream_jax.checkpoints.param_trees import build_params
from shotstream_jax.checkpoints.torch_weights import open_weights
from shotstream_jax.model_config import ModelConfig, RolloutConfig
from shotstream_jax.models.cache import Window
from shotstream_jax.models.configs import TextEncoderConfig, VAEConfig
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.stream import Camera, plan_for
from shotstream_jax.story import Defaults, Shot, Story


def ours(recorded):
    return jnp.asarray(np.moveaxis(recorded, -3, -1))


@pytest.fixture
def vae(golden):
    sizes = golden.sizes("vae")
    config = VAEConfig(
        base_channels=sizes["dim"],
        latent_channels=sizes["z_dim"],
        multipliers=tuple(sizes["dim_mult"]),
        residual_blocks=sizes["num_res_blocks"],
        temporal_downsample=tuple(sizes["temporal_downsample"]),
    )
    tensors = open_weights(golden.path("Wan2.1_VAE.pth"))
    return jax.tree.map(jnp.asarray, build_params(vae_names(config), tensors)), config


@pytest.fixture
def film(golden, dit_params, dit_config, vae):
    """The recorded story, and networks that read its recorded captions."""
    recorded = golden.arrays("rollout_golden")
    shots = 1 + max(int(m[1]) for key in recorded if (m := re.match(r"s(\d+)_noise", key)))
    rows, cols = recorded["s0_noise"].shape[-2:]

    def encode_text(captions):
        numbers = [re.search(r"shot(\d+):", caption)[1] for caption in captions]
        return jnp.stack([jnp.asarray(recorded[f"s{n}_caption_emb"]) for n in numbers])

    window = Window(
        chunk=recorded["s0_renoise"].shape[3],
        context=recorded["s0_context_latents"].shape[1],
        local=recorded["s0_noise"].shape[1],
    )
    params, config = vae
    # Captions are recorded as embeddings: of the text encoder only its output's width is read.
    text = TextEncoderConfig(dim=dit_config.text_dim)
    networks = Networks(
        config=ModelConfig(
            dit=dit_config, vae=config, text=text, rollout=RolloutConfig(window=window)
        ),
        dit=dit_params,
        vae=params,
        encode_text=encode_text,
    )
    story = Story(
        title="recorded",
        shots=tuple(Shot(caption=f"{number}") for number in range(shots)),
        defaults=Defaults(
            size=(rows * config.spatial_stride, cols * config.spatial_stride),
            chunks=recorded["s0_noise"].shape[1] // window.chunk,
        ),
        version=1,
    )
    return recorded, networks, story


def recorded_noise(recorded, window, plan, chunk):
    frames = slice(chunk * window.chunk, (chunk + 1) * window.chunk)
    first = ours(recorded[f"s{plan.index}_noise"])[None, :, frames]
    return jnp.concatenate([first, ours(recorded[f"s{plan.index}_renoise"][chunk])])


def test_whole_film(film, agree, film_tolerance):
    recorded, networks, story = film
    camera = Camera(networks, story.defaults.size)
    noise = functools.partial(recorded_noise, recorded, networks.config.rollout.window)
    video = []
    for index in range(len(story.shots)):
        plan = plan_for(networks, story, index)
        if plan.context:
            context = [camera.store.latent(frame.source) for frame in plan.context]
            seen = jnp.concatenate(context, axis=1)
            expected = np.moveaxis(recorded[f"s{index}_context_latents"], -3, -1)
            agree(seen, expected, film_tolerance)
        pieces = list(camera.film(plan, noise=noise))
        latents = np.concatenate([piece.latents for piece in pieces], axis=1)
        expected = np.moveaxis(recorded[f"s{index}_latents"], -3, -1)
        agree(latents, expected, film_tolerance)
        video += [piece.frames for piece in pieces]

    frames = np.concatenate(video)[None]
    assert frames.shape == tuple(recorded["video_shape"][i] for i in (0, 1, 3, 4, 2))
    strided = recorded["video_strided"]
    shown = rearrange(frames, "batch frame height width rgb -> batch frame rgb height width")
    # Ours are rounded to 8 bits, the recording is not: half a level, and the film's own error.
    steps = (-(-full // thin) for full, thin in zip(shown.shape, strided.shape, strict=True))
    thinned = shown[tuple(slice(None, None, step) for step in steps)]
    wrong = np.abs(thinned / 255 - strided).max()
    assert wrong <= 0.5 / 255 + film_tolerance
    assert abs(shown.mean() / 255 - recorded["video_mean"]) <= film_tolerance
