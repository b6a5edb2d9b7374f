"""A film of cut, cut, continue, cut, computed by hand: no cache, no plan, no camera.

Every denoising step is one dense pass over context, earlier chunks and the chunk itself, block by
block causal, each frame told its own caption, shot number and timestep. Shots of 4, 2, 4 and 2
latent frames show 13, 5, 16 and 5 video frames, and six context frames are seen:

    shot 0  cut                             zeros, six times its own caption
    shot 1  cut       0: 0 2 5 7 10 12      evenly over the one shot before
    shot 2  continue  as shot 1             filmed on after it, to another caption
    shot 3  cut       0: 0 12, 1: 0 4, 2: 0 15
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shotstream_jax.models.dit import apply_dense, encode_captions
from shotstream_jax.models.rope import grid_positions, rotation
from shotstream_jax.models.vae import decode, encode_images
from shotstream_jax.rollout.stream import stream_story
from shotstream_jax.story import Defaults, Shot, Story
from tests.small_model import DIT, VAE, embed

SEED, CHUNK, SLOTS = 5, 2, 6
NAMES = ("one", "two", "three", "four")
CAPTIONS = tuple(f"a tale.shot{place}:{name}" for place, name in enumerate(NAMES))
SIGMAS = (1.0, 8 * 0.5 / (1 + 7 * 0.5))
"""Levels 1000 and 500 at shift 8."""

SEEN = {
    1: [(0, frame) for frame in (0, 2, 5, 7, 10, 12)],
    3: [(0, 0), (0, 12), (1, 0), (1, 4), (2, 0), (2, 15)],
}


def story(version):
    shots = (
        Shot(caption="one", id="one", chunks=2),
        Shot(caption="two", id="two"),
        Shot(caption="three", id="three", chunks=2, transition="continue"),
        Shot(caption="four", id="four", take=1),
    )
    defaults = Defaults(size=(32, 48), seed=SEED, chunks=1)
    return Story(
        title="t", shots=shots, defaults=defaults, global_caption="a tale.", version=version
    )


@jax.jit
def ask(params, latents, timesteps, shots, texts, end):
    """Velocity of frames in blocks of six and then two; those from `end` on are of no account."""
    frames = latents.shape[0]
    numbers = jnp.arange(frames)[None]
    grid = latents.shape[1] // DIT.patch[0], latents.shape[2] // DIT.patch[1]
    angles = rotation(grid_positions(numbers, shots[None], *grid), DIT.head_dim, DIT.shot_phase)
    levels = (SLOTS, *[CHUNK] * ((frames - SLOTS) // CHUNK))
    said = apply_dense(
        params,
        DIT,
        latents[None],
        timesteps[None],
        angles,
        encode_captions(params, DIT, texts[None]),
        caption_index=numbers,
        levels=levels,
    )
    return jax.lax.dynamic_slice_in_dim(said.velocity[0], end, CHUNK)


class Hand:
    """Films one camera: a context, and chunk after chunk behind it."""

    def __init__(self, networks, context, context_shots, captions, rope_shot):
        self.params, self.rope_shot = networks.dit, rope_shot
        self.latents, self.shots = list(context), list(context_shots)
        self.texts = list(embed(captions))

    def chunk(self, noise, caption):
        """A chunk from its noise of two steps; later ones see it clean, under this caption."""
        start, x0 = len(self.latents), None
        # Room for three chunks, whatever stands there, so that there is one program.
        spare = SLOTS + 3 * CHUNK - start - CHUNK
        shots = [*self.shots, *[self.rope_shot] * (CHUNK + spare)]
        texts = [*self.texts, *[embed([caption])[0]] * (CHUNK + spare)]
        for sigma, fresh in zip(SIGMAS, noise, strict=True):
            x_t = fresh if x0 is None else (1 - sigma) * x0 + sigma * fresh
            frames = [*self.latents, *x_t, *[jnp.zeros_like(x_t[0])] * spare]
            told = jnp.where(jnp.arange(len(frames)) < start, 0.0, 1000 * sigma)
            inputs = jnp.stack(frames), told, jnp.asarray(shots), jnp.stack(texts)
            x0 = x_t - sigma * ask(self.params, *inputs, start)
        self.latents += list(x0)
        self.shots += [self.rope_shot] * CHUNK
        self.texts += [embed([caption])[0]] * CHUNK
        return x0


def noise_of(version, shot, chunk, take=0):
    """Noise of both steps: of seed, shot (its place in format 1, later its name), take, chunk."""
    number = shot if version == 1 else zlib.crc32(NAMES[shot].encode())
    key = jax.random.key(SEED)
    for part in (number, take, chunk):
        key = jax.random.fold_in(key, part)
    shape = (CHUNK, 4, 6, DIT.latent_channels)
    return [jax.random.normal(jax.random.fold_in(key, step), (1, *shape))[0] for step in (0, 1)]


def by_hand(networks, version):
    """Latents of all four shots."""
    blank = jnp.zeros((SLOTS, 4, 6, DIT.latent_channels))
    camera = Hand(networks, blank, [0] * SLOTS, [CAPTIONS[0]] * SLOTS, 1)
    latents = [[camera.chunk(noise_of(version, 0, chunk), CAPTIONS[0]) for chunk in (0, 1)]]
    shown = [decoded(networks, latents[0])]

    camera = cut(networks, shown, 1)
    latents += [[camera.chunk(noise_of(version, 1, 0), CAPTIONS[1])]]
    latents += [[camera.chunk(noise_of(version, 2, chunk), CAPTIONS[2]) for chunk in (0, 1)]]
    both = decoded(networks, latents[1] + latents[2])
    shown += [both[:5], both[5:]]

    camera = cut(networks, shown, 3)
    latents += [[camera.chunk(noise_of(version, 3, 0, take=1), CAPTIONS[3])]]
    return [np.concatenate(shot) for shot in latents]


def cut(networks, shown, shot):
    """A camera that sees the frames of earlier shots, each encoded by itself."""
    pictures = jnp.stack([shown[earlier][frame] for earlier, frame in SEEN[shot]])
    earlier = [earlier for earlier, _ in SEEN[shot]]
    context = encode_images(networks.vae, VAE, pictures[None])[0]
    return Hand(networks, context, earlier, [CAPTIONS[k] for k in earlier], shot)


def decoded(networks, chunks):
    return jnp.clip(decode(networks.vae, VAE, jnp.concatenate(chunks)[None])[0], -1, 1)


@pytest.mark.parametrize("version", [1, 2])
def test_a_film_is_the_one_computed_by_hand(networks, version):
    filmed: dict[int, list] = {}
    for piece in stream_story(networks, story(version)):
        filmed.setdefault(piece.plan.index, []).append(piece.latents[0])
    for shot, expected in enumerate(by_hand(networks, version)):
        found = np.concatenate(filmed[shot])
        assert found.shape == expected.shape
        # The film's own error grows from shot to shot, as far as one picture decides the next.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
