"""The autoencoder: its loss, its start as a network for pictures, its clips and its gate."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.checkpoints.manager import load_network, read_config
from shotstream_jax.models.configs import VAEConfig
from shotstream_jax.models.vae import decode, encode, frames_to_pixels, init_vae
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.storyworld.source import WorldSource
from shotstream_jax.train.engine.compiled import mesh_of
from shotstream_jax.train.engine.loop import train
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.objectives.vae import (
    VAELoss,
    init_inflated,
    peak_ratio,
    vae_loss,
)
from shotstream_jax.train.stages.clips import Phase, PhasedClips, RandomClip, phase_ends
from shotstream_jax.train.stages.vae import VAETraining
from shotstream_jax.train.stages.vae_score import (
    draw_comparison,
    latent_statistics,
    score_reconstructions,
    worst_attribute,
)

TINY = VAEConfig(
    base_channels=2,
    latent_channels=2,
    multipliers=(1, 2),
    residual_blocks=1,
    temporal_downsample=(True,),
    latent_mean=(0.0,) * 2,
    latent_std=(1.0,) * 2,
)
SMALL = {"picture": Picture(height=16, width=32), "video_frames": 9}


def films(stories=3):
    return WorldSource(stories=stories, shots=2, **SMALL)


def some_pixels(batch=2, frames=5):
    return jax.random.uniform(jax.random.key(1), (batch, frames, 8, 8, 3), minval=-1, maxval=1)


def latents_of(params, config, source):
    """Latents of the first shots of two films."""
    pixels = frames_to_pixels(jnp.asarray(np.stack([source[i].frames(0) for i in range(2)])))
    return jax.jit(encode, static_argnums=1)(params, config, pixels)


@pytest.fixture(scope="module")
def params():
    return jax.jit(init_inflated, static_argnums=1)(jax.random.key(0), TINY)


def test_the_loss_is_the_sum_of_its_parts(params):
    keys = jax.random.split(jax.random.key(2), 2)
    weights = VAELoss(edges=0.5, divergence=0.25)
    value, report = jax.jit(vae_loss, static_argnames=("config", "loss"))(
        params, TINY, some_pixels(), keys, loss=weights
    )
    parts = report.metrics
    expected = parts["pixels"] + 0.5 * parts["edges"] + 0.25 * parts["divergence"]
    assert float(value) == pytest.approx(float(expected), rel=1e-5)


def test_edges_are_what_a_blur_gets_wrong():
    """Of two reconstructions with one mean error, the blurred one has the larger edge error."""
    step = jnp.where(jnp.arange(8) < 4, -1.0, 1.0)
    true = jnp.broadcast_to(step[:, None], (8, 3))
    blurred = jnp.broadcast_to((step + jnp.roll(step, 1)) / 2, (3, 8)).T
    shifted = true + jnp.abs(blurred - true).mean()

    def edges(made):
        return float(jnp.abs(jnp.diff(made - true, axis=0)).mean())

    assert edges(shifted) == pytest.approx(0, abs=1e-6)
    assert edges(blurred) > 0.1


def test_what_moves_may_count_for_more(params):
    """In a clip that stands still nothing changes; where something moves its errors weigh more."""
    keys = jax.random.split(jax.random.key(2), 2)
    still = jnp.repeat(some_pixels(2, 1), 5, axis=1)
    loss = jax.jit(vae_loss, static_argnames=("config", "loss"))

    def error(pixels, motion):
        weights = VAELoss(edges=0.0, divergence=0.0, motion=motion)
        return float(loss(params, TINY, pixels, keys, loss=weights)[0])

    assert error(still, 8.0) == pytest.approx(error(still, 0.0), rel=1e-5)
    blinking = still * jnp.where(jnp.arange(5) % 2, -1.0, 1.0)[:, None, None, None]
    more = error(blinking, 1.0) - error(blinking, 0.0)
    assert more > 0.1 * error(blinking, 0.0)
    assert error(blinking, 8.0) - error(blinking, 0.0) == pytest.approx(8 * more, rel=1e-3)


def test_chance_is_by_sample(params):
    pixels = some_pixels()
    keys = jax.random.split(jax.random.key(2), 2)
    loss = jax.jit(vae_loss, static_argnames="config")
    whole, _ = loss(params, TINY, pixels, keys)
    halves = [loss(params, TINY, pixels[i : i + 1], keys[i : i + 1])[0] for i in range(2)]
    assert float(whole) == pytest.approx(float(sum(halves)) / 2, rel=1e-5)


def test_an_inflated_network_takes_a_still_clip_for_a_picture(params):
    picture = some_pixels(1, 1)
    still = jnp.repeat(picture, 9, axis=1)

    @jax.jit
    def through(params, pixels):
        latents = encode(params, TINY, pixels)
        return latents, decode(params, TINY, latents)

    latents, made = through(params, still)
    one_latent, one_made = through(params, picture)
    # Norms over two channels magnify the rounding of sums that are taken in another order.
    np.testing.assert_allclose(latents, jnp.repeat(one_latent, 5, axis=1), rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(made, jnp.repeat(one_made, 9, axis=1), rtol=1e-3, atol=2e-4)


def test_a_network_that_is_not_inflated_does_not():
    plain = jax.jit(init_vae, static_argnums=1)(jax.random.key(0), TINY)
    still = jnp.repeat(some_pixels(1, 1), 9, axis=1)
    latents = jax.jit(encode, static_argnums=1)(plain, TINY, still)
    assert float(jnp.abs(latents[:, 1:] - latents[:, :1]).max()) > 0.1


def test_inflation_keeps_the_size_of_the_signal():
    wide = dataclasses.replace(TINY, base_channels=32)
    plain, inflated = (
        jax.jit(init, static_argnums=1)(jax.random.key(0), wide)["encoder"]["conv_in"]["kernel"]
        for init in (init_vae, init_inflated)
    )
    assert np.square(inflated).sum() == pytest.approx(np.square(plain).sum(), rel=0.15)
    assert not np.any(inflated[:2])


def test_an_error_of_a_tenth_of_the_range_is_20_db():
    assert float(peak_ratio(jnp.asarray(0.04))) == pytest.approx(20)


def test_clips_begin_anywhere_and_are_consecutive():
    film = films()[0]
    whole = [film.frames(shot) for shot in range(2)]
    starts = set()
    for seed in range(60):
        pixels = RandomClip(5)(film, np.random.default_rng(seed))["pixels"]
        found = [
            (shot, first)
            for shot in range(2)
            for first in range(5)
            if np.array_equal(whole[shot][first : first + 5], pixels)
        ]
        assert found
        starts.add(found[0])
    assert {first for _, first in starts} == set(range(5))
    with pytest.raises(ValueError, match="9 video frames holds no clip of 13"):
        RandomClip(13)(film, np.random.default_rng(0))


PHASES = (Phase(share=0.5, video_frames=1, batch=3), Phase(share=0.5, video_frames=5, batch=2))


def test_phases_follow_one_another_and_resume_anywhere():
    whole = PhasedClips(films(8), PHASES, steps=6, seed=4)
    batches = [next(whole)["pixels"] for _ in range(8)]
    assert [batch.shape[:2] for batch in batches] == [(3, 1)] * 3 + [(2, 5)] * 5
    for place in (0, 1, 3, 5):
        first = PhasedClips(films(8), PHASES, steps=6, seed=4)
        for _ in range(place):
            next(first)
        second = PhasedClips(films(8), PHASES, steps=6, seed=4)
        second.set_state(json.loads(json.dumps(first.get_state())))
        for batch in batches[place:]:
            np.testing.assert_array_equal(next(second)["pixels"], batch)


def test_phases_must_fill_the_run():
    assert phase_ends(PHASES, 9) == (4, 9)
    with pytest.raises(ValueError, match=r"shares 0\.5, 0\.2"):
        phase_ends((PHASES[0], dataclasses.replace(PHASES[1], share=0.2)), 9)


def test_scores_are_the_oracles():
    source = WorldSource(stories=4, shots=2, picture=Picture(height=64, width=96))
    perfect = score_reconstructions(lambda params, frames: frames, {}, source)
    assert {v for k, v in perfect.items() if k.startswith("oracle/")} == {1.0}
    assert perfect["psnr"] > 60
    black = score_reconstructions(lambda params, frames: frames * 0, {}, source)
    assert worst_attribute(black) == ("shape", 0.0)
    assert black["psnr"] < 15


def test_statistics_are_those_of_all_latents(params):
    source = films(2)
    latents = latents_of(params, TINY, source)
    mean, deviation = latent_statistics(params, TINY, source)
    np.testing.assert_allclose(mean, latents.mean((0, 1, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(deviation, latents.std((0, 1, 2, 3)), rtol=1e-4)


def test_the_comparison_shows_truth_above_reconstruction(tmp_path):
    from PIL import Image

    draw_comparison(lambda params, frames: frames // 2, {}, films(1), tmp_path / "a.png")
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    above, below = np.split(sheet, 2)
    np.testing.assert_array_equal(above // 2, below)
    assert sheet.shape == (2 * 20, 6 * 36, 3)


def training(folder, **settings):
    given = {
        "vae": TINY,
        "optimizer": OptimizerConfig(learning_rate=1e-2, ema=0.9),
        "phases": (Phase(share=1.0, video_frames=5, batch=2),),
        "height": 16,
        "width": 32,
        "video_frames": 5,
        "stories": 6,
        "steps": 4,
        "validate_every": 4,
        "validation_stories": 2,
        "test_stories": 2,
        "min_oracle_accuracy": 0.0,
    }
    return VAETraining(output=folder / "run", **{**given, **settings})


def test_the_stage_trains_stops_resumes_and_exports_what_later_stages_read(tmp_path):
    assert train(training(tmp_path)).ended == "finished"
    stored = read_config(tmp_path / "run" / "export")
    config = stored.network("vae")
    assert stored.weights == "trained"
    assert stored.training["scores"]["psnr"] > 0
    params = load_network(tmp_path / "run" / "export", "vae")
    source = WorldSource(stories=6, shots=2, picture=Picture(height=16, width=32), video_frames=5)
    latents = latents_of(params, config, source)
    np.testing.assert_allclose(latents.mean((0, 1, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(latents.std((0, 1, 2, 3)), 1, atol=1e-3)
    assert (tmp_path / "run" / "validation" / "step_000004.png").exists()


def test_an_autoencoder_is_trained_further(tmp_path):
    train(training(tmp_path))
    first = tmp_path / "run" / "export"
    further = training(tmp_path / "further", start=first, seed=5)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    start = further.stage(mesh_of(further.mesh)).weights["vae"]
    loaded = start.load(jax.tree.map(lambda _: here, start.shapes))
    for a, b in zip(
        jax.tree.leaves(loaded), jax.tree.leaves(load_network(first, "vae")), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert train(further).ended == "finished"
    facts = read_config(tmp_path / "further" / "run" / "export").training
    assert facts["seed"] == 5
    assert [earlier["seed"] for earlier in facts["after"]] == [0]
    wide = dataclasses.replace(TINY, base_channels=8)
    with pytest.raises(ValueError, match="holds a vae with base_channels 2 and the config says 8"):
        train(training(tmp_path / "wide", start=first, vae=wide))


def test_a_network_below_the_gate_is_not_exported(tmp_path, params):
    gated = training(tmp_path, min_oracle_accuracy=0.95)
    stage = gated.stage(mesh_of(gated.mesh))
    with pytest.raises(
        ValueError, match=r"The oracle reads shape on 0\.00 of .* 0\.95 is required"
    ):
        stage.finish({"vae": params}, tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 48, "width": 90}, "48x90"),
        ({"phases": (Phase(share=1.0, video_frames=6, batch=1),)}, "6 video frames"),
        ({"phases": (Phase(share=0.4, video_frames=5, batch=1),)}, "add up to 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_made(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        train(training(tmp_path, **settings))
    assert not (tmp_path / "run").exists()
