"""The command as a person runs it, in this process: exit status and what was said."""

import pathlib

import jax
import pytest

from shotstream_jax.checkpoints.manager import save_checkpoint
from shotstream_jax.cli.main import main
from shotstream_jax.data.tokenizer import TOKENIZER_FILE, word_tokenizer
from shotstream_jax.models.dit import init_dit
from shotstream_jax.models.text_encoder import init_text_encoder
from shotstream_jax.models.vae import init_vae
from shotstream_jax.presets import TINY
from shotstream_jax.storyworld.captions import VOCABULARY

STORY = """\
version: 1
title: A test
global: "meet the orange star."
defaults: {seed: 3, size: [32, 48], fps: 8, chunks: 1}
shots:
  - caption: "wide shot, it walks right."
  - caption: "close shot, it jumps."
"""


@pytest.fixture
def story(tmp_path) -> pathlib.Path:
    path = tmp_path / "story.yaml"
    path.write_text(STORY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def film(tmp_path_factory) -> pathlib.Path:
    """The folder of one film, made once; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "story.yaml").write_text(STORY, encoding="utf-8")
    assert main(["generate", str(folder / "story.yaml"), "-o", str(folder / "film")]) == 0
    return folder / "film"


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> pathlib.Path:
    """A checkpoint of the miniature's sizes whose weights are random, and which says so."""
    folder = tmp_path_factory.mktemp("untrained")
    tokenizer = word_tokenizer(VOCABULARY, TINY.dit.text_tokens)
    tokenizer.save(folder / "words")
    key = jax.random.key(0)
    networks = {
        "dit": jax.jit(init_dit, static_argnums=1)(key, TINY.dit),
        "vae": jax.jit(init_vae, static_argnums=1)(key, TINY.vae),
        "text": jax.jit(init_text_encoder, static_argnums=1)(key, TINY.text),
    }
    document = {**TINY.to_json(), "weights": "random"}
    save_checkpoint(folder / "tiny", networks, document, folder / "words" / TOKENIZER_FILE)
    return folder / "tiny"


@pytest.fixture
def run(capsys):
    """Run `shotstream ...`; the error, if any, must be one line."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


@pytest.fixture
def refused(run):
    """Run a command that must fail with status 2; returns the line that says why."""

    def call(*arguments: object) -> str:
        status, _, err = run(*arguments)
        lines = [line for line in err.splitlines() if line.startswith("shotstream: ")]
        assert status == 2
        assert len(lines) == 1
        assert err.splitlines()[-1] == lines[0]
        assert "Traceback" not in err
        return lines[0]

    return call
