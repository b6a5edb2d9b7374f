"""The 1.3B at full size, with made-up weights: convert a released-format file, film a chunk.

Slow (minutes, 12 GB of disk): `pytest -m slow -s tests/test_full_size.py`.
"""

import dataclasses
import functools
import json
import pathlib
import resource
import subprocess
import sys
import zlib

import numpy as np
import pytest

from shotstream_jax.checkpoints.names_dit import dit_names
from shotstream_jax.checkpoints.names_text import text_names
from shotstream_jax.checkpoints.names_vae import vae_names
from shotstream_jax.checkpoints.tensors import LazyArray
from shotstream_jax.checkpoints.torch_writer import write_torch
from shotstream_jax.data.tokenizer import word_tokenizer
from shotstream_jax.models.configs import UMT5_XXL, WAN_1_3B, WAN_VAE

STORY = """\
version: 1
title: Full size
defaults: {size: [64, 96], chunks: 1}
shots: [{caption: "a lighthouse"}]
"""
# The text encoder alone is 11 GB: one layer of it is enough to write text of the full width.
TEXT = dataclasses.replace(UMT5_XXL, layers=1, vocab=300)


def made_up(name, shape):
    """Small noise, the same for the same name; gains are one."""
    if name.endswith(("gamma", "norm_q.weight", "norm_k.weight", "norm3.weight")):
        return np.ones(shape, np.float32)
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    fan_in = max(1, int(np.prod(shape[1:])))
    return generator.standard_normal(shape, np.float32) * np.float32(fan_in**-0.5)


def write_network(path, names, prefix="", section=None):
    tensors = {
        prefix + name: LazyArray(
            slot.shape, np.dtype(np.float32), functools.partial(made_up, name, slot.shape)
        )
        for name, slot in names.items()
    }
    write_torch(path, tensors, section)


def shotstream(*arguments):
    """Run the command in a process of its own; returns its peak resident memory in GB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    command = [sys.executable, "-m", "shotstream_jax.cli.main", *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # The kernel keeps the largest child so far: a smaller one after it is not seen.
    return peak / 1e6 if peak > before else None


@pytest.fixture
def released(tmp_path) -> pathlib.Path:
    """What a user would have downloaded."""
    wan = tmp_path / "Wan2.1-T2V-1.3B"
    (wan / "google" / "umt5-xxl").mkdir(parents=True)
    word_tokenizer(["lighthouse"], 512).save(wan / "google" / "umt5-xxl")
    write_network(wan / "Wan2.1_VAE.pth", vae_names(WAN_VAE))
    write_network(wan / "models_t5_umt5-xxl-enc-bf16.pth", text_names(TEXT))
    student = tmp_path / "shotstream_merged.pt"
    write_network(student, dit_names(WAN_1_3B), prefix="model.", section="generator")
    assert student.stat().st_size > 5.6e9
    return tmp_path


@pytest.mark.slow
def test_converts_and_films_in_bfloat16(released, capsys):
    wan, checkpoint = released / "Wan2.1-T2V-1.3B", released / "checkpoint"
    (released / "story.yaml").write_text(STORY)
    converting = shotstream(
        *("convert", released / "shotstream_merged.pt", "--wan", wan),
        *("-o", checkpoint, "--dtype", "bfloat16"),
    )
    film = released / "film"
    filming = shotstream(
        *("generate", released / "story.yaml", "-o", film),
        *("--checkpoint", checkpoint, "--dtype", "bfloat16"),
    )
    with capsys.disabled():
        sys.stdout.write(f"\npeak resident memory, GB: convert {converting}, film {filming}\n")
    manifest = json.loads((film / "manifest.json").read_text())
    assert manifest["dtype"] == "bfloat16"
    assert manifest["timings"]["frames"] == 9
    with np.load(film / "shot_01.npz") as shot:
        assert np.isfinite(shot["latents"]).all()
        assert shot["latents"].std() > 0.1
    assert max(filter(None, (converting, filming))) < 12
