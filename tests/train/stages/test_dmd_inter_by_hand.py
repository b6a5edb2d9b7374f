"""Three steps from shot to shot, computed by hand: adapters learn, what is made is remembered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models.vae import decode, encode_images
from shotstream_jax.train.objectives.dmd import DMDConfig
from shotstream_jax.train.stages.dmd_inter import InterShotTraining, LoRAConfig
from tests.train.by_hand import (
    CAPTIONS,
    FILMS,
    SHIFT,
    SHOTS,
    STORED,
    VAE,
    Run,
    assert_moved,
    assert_same,
    caption_number,
    ids_of,
    mean_of,
    shot_of,
    step_keys,
)
from tests.train.stages.distillation_by_hand import (
    GUIDANCE,
    critic_sample,
    draws_of,
    exit_step_of,
    generator_sample,
)

# On one worker: its films and checkpoints are made once.
pytestmark = pytest.mark.xdist_group("by hand")

SEED, RANK, ALPHA = 5, 2, 6.0


def films_of(batch):
    """Which film each sample is, by its captions."""
    ids = np.stack([ids_of(caption)[0][0] for caption in CAPTIONS])
    told = [ids[[caption_number(film, shot) for shot in range(SHOTS)]] for film in range(FILMS)]
    return [next(f for f in range(FILMS) if (told[f] == row).all()) for row in batch["ids"]]


def adapted(base, factors):
    """Kernels of the blocks with alpha / rank times the product of their factors on top."""
    blocks = {**base["blocks"]}
    for part, linears in factors["blocks"].items():
        blocks[part] = {**blocks[part]}
        for linear, pair in linears.items():
            change = ALPHA / RANK * jnp.einsum("lir,lro->lio", pair["a"], pair["b"])
            kernel = blocks[part][linear]["kernel"] + change
            blocks[part][linear] = {**blocks[part][linear], "kernel": kernel}
    return {**base, "blocks": blocks}


def through_adapters(base, factors, gradient):
    """The gradient in factors, of that in the network which they make."""
    _, pull = jax.vjp(lambda factors: adapted(base, factors), factors)
    return pull(gradient)[0]


def random_factors(like, seed):
    leaves, tree = jax.tree.flatten(like)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [0.2 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return tree.unflatten(drawn)


@jax.jit
def pictures_of(vae, history):
    """The frames of a shot that later ones may see, each decoded, cut to [-1, 1], and encoded."""
    pixels = jnp.clip(decode(vae, VAE, history[None])[0, jnp.asarray(STORED)], -1, 1)
    return encode_images(vae, VAE, pixels[None])[0]


def test_shots_of_a_story_are_learnt_from_one_after_the_other(material, tmp_path):
    experiment = InterShotTraining(
        **material.settings,
        output=tmp_path,
        seed=SEED,
        generator=material.export("dmd_intra"),
        teacher=material.export("teacher"),
        latents=material.root / "latents",
        critic_optimizer=material.settings["optimizer"],
        dmd=DMDConfig(shift=SHIFT, guidance=GUIDANCE),
        generator_every=2,
        shots=SHOTS,
        adapter=LoRAConfig(rank=RANK, alpha=ALPHA),
    )
    run = Run(experiment)
    bases = {"generator": material.dit["dmd_intra"], "fake_score": material.dit["teacher"]}
    films, exits = None, []
    pictures = np.zeros((experiment.batch, SHOTS, len(STORED), *material.pictures.shape[3:]))
    for step, learner in enumerate(("generator", "fake_score", "generator")):
        shot = step
        assert run.stage.network_for_step(step) == learner
        start = {
            name: random_factors(factors, 10 * step + seed)
            for seed, (name, factors) in enumerate(run.params.items())
        }
        run.replace(**start)
        start = run.params
        batch, metrics = run.step(step)
        films = films_of(batch) if films is None else films
        assert films_of(batch) == films
        shared, keys = step_keys(SEED, step, len(films))
        exits.append(exit_step_of(shared))
        whole = {name: adapted(bases[name], factors) for name, factors in start.items()}
        samples = []
        for sample, (film, key) in enumerate(zip(films, keys, strict=True)):
            seen = shot_of(material, film, shot, jnp.asarray(pictures[sample], jnp.float32))
            _, draws = draws_of(key)
            if learner == "generator":
                networks = whole["generator"], whole["fake_score"], material.dit["teacher"]
                result = generator_sample(seen, networks, draws, exits[-1], finished=True)
            else:
                networks = whole["generator"], whole["fake_score"]
                result = critic_sample(seen, networks, draws, exits[-1], finished=True)
            samples.append(result)
        value, of_whole, _ = mean_of(samples)
        np.testing.assert_allclose(metrics[f"{learner}/loss"], value, rtol=1e-3)
        gradient = through_adapters(bases[learner], start[learner], of_whole)
        assert_moved(start[learner], run.params[learner], gradient, share=5e-3)
        other = next(name for name in bases if name != learner)
        assert_same(start[other], run.params[other])

        pictures[:, shot] = np.stack([pictures_of(material.vae, one[2]) for one in samples])
        largest = np.abs(pictures[:, : shot + 1]).max()
        found = np.asarray(run.state.carry)
        np.testing.assert_allclose(
            found[:, : shot + 1], pictures[:, : shot + 1], atol=2e-3 * largest
        )
    assert 0 in exits[:2], "draw another seed: what is remembered must differ from what is scored"
    assert len(set(films)) > 1
    run.step(3)
    np.testing.assert_allclose(
        np.asarray(run.state.carry)[:, 1:], pictures[:, 1:], atol=2e-3 * largest
    )
