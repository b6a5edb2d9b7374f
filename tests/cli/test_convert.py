"""`shotstream convert` prints what it found, and says bad input in one line with status 2."""

import io
import json
import pathlib
import signal
import zipfile

import numpy as np
import pytest
from rich.console import Console

from shotstream_jax.checkpoints.manager import read_config, stored_leaves
from shotstream_jax.checkpoints.names_dit import dit_names
from shotstream_jax.checkpoints.names_text import text_names
from shotstream_jax.checkpoints.names_vae import vae_names
from shotstream_jax.checkpoints.report import PartialWeightsError
from shotstream_jax.checkpoints.torch_weights import open_weights
from shotstream_jax.checkpoints.torch_writer import write_torch
from shotstream_jax.cli.convert import Convert, convert
from shotstream_jax.cli.main import main
from shotstream_jax.model_config import LoRAConfig
from shotstream_jax.models.configs import DiTConfig, TextEncoderConfig, VAEConfig

DIT = DiTConfig(dim=128, layers=2, heads=1, ffn_dim=8, freq_dim=4, text_dim=12, latent_channels=16)
VAE = VAEConfig(base_channels=2, multipliers=(1, 2), residual_blocks=1, temporal_downsample=(True,))
TEXT = TextEncoderConfig(vocab=9, dim=12, attention_dim=8, ffn_dim=6, heads=2, layers=1, buckets=4)


def zeros(table) -> dict[str, np.ndarray]:
    return {name: np.zeros(slot.shape, np.float32) for name, slot in table.items()}


@pytest.fixture
def wan(tmp_path) -> pathlib.Path:
    """A Wan2.1 folder without a transformer."""
    folder = tmp_path / "wan"
    write_torch(folder / "Wan2.1_VAE.pth", zeros(vae_names(VAE)))
    write_torch(folder / "models_t5_small.pth", zeros(text_names(TEXT)))
    (folder / "google" / "umt5-xxl").mkdir(parents=True)
    (folder / "google" / "umt5-xxl" / "tokenizer.json").write_text('{"model": {}}')
    return folder


@pytest.fixture
def film(tmp_path) -> pathlib.Path:
    """A file as ShotStream's releases are."""
    tensors = {f"model.{name}": values for name, values in zeros(dit_names(DIT)).items()}
    write_torch(tmp_path / "film.pt", tensors, section="generator")
    return tmp_path / "film.pt"


@pytest.fixture
def lora(tmp_path) -> pathlib.Path:
    tensors = {
        f"base_model.model.blocks.{layer}.self_attn.q.lora_{half}.weight": np.ones(
            shape, np.float32
        )
        for layer in range(DIT.layers)
        for half, shape in (("A", (2, 128)), ("B", (128, 2)))
    }
    write_torch(tmp_path / "lora.pt", tensors, section="generator_lora")
    return tmp_path / "lora.pt"


def run(**options) -> str:
    console = Console(file=io.StringIO(), width=100)
    convert(Convert(**options), console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def shotstream(monkeypatch, tmp_path, capsys):
    """The whole command: its exit status and the one line that it says when something is wrong."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "programs"))
    before = signal.getsignal(signal.SIGTERM)

    def call(*words: object) -> tuple[int, str]:
        status = main(["convert", *map(str, words)])
        return status, capsys.readouterr().err

    yield call
    signal.signal(signal.SIGTERM, before)


def test_a_file_and_its_base_become_a_checkpoint(film, wan, tmp_path):
    said = run(source=film, wan=wan, output=tmp_path / "out", dtype="bfloat16")
    assert "Wan2.1 transformer, film.pt" in said
    assert f"{len(dit_names(DIT))} used" in said
    assert f"{len(dit_names(DIT))} x float32 -> bfloat16" in said
    assert "[out, in] -> [in, out]" in said
    assert said.count("nothing is missing") == 3
    assert "Wrote dit, vae, text to" in said
    assert set(read_config(tmp_path / "out").networks) == {"dit", "vae", "text"}


def test_what_films_need_besides_is_said(film, tmp_path):
    assert "It has no vae and no text" in run(source=film, output=tmp_path / "out")


def test_a_checkpoint_becomes_an_official_file(film, tmp_path):
    run(source=film, output=tmp_path / "out")
    said = run(source=tmp_path / "out", to_official=tmp_path / "back.pt")
    assert "Wrote dit to" in said
    before, after = open_weights(film), open_weights(tmp_path / "back.pt")
    assert before.keys() == after.keys()


def test_a_lora_is_merged_or_kept(film, lora, tmp_path):
    run(source=film, lora=(str(lora),), lora_alpha=1.0, output=tmp_path / "merged")
    run(source=tmp_path / "merged", to_official=tmp_path / "merged.safetensors")
    kernel = open_weights(tmp_path / "merged.safetensors")["blocks.1.self_attn.q.weight"]
    np.testing.assert_array_equal(kernel, np.ones((128, 128)))
    said = run(source=film, lora=(str(lora),), keep_lora=True, output=tmp_path / "kept")
    assert "LoRA factors, lora.pt" in said
    assert read_config(tmp_path / "kept").lora == LoRAConfig(rank=2, alpha=2.0)


def test_several_loras_weigh_in_and_are_said(film, lora, tmp_path):
    """Kind: what was scaled is printed, and a second --lora does not replace the first."""
    said = run(source=film, lora=(str(lora), f"{lora}:-0.5"), output=tmp_path / "two")
    assert "2 of 2 layers, 2 kernels, rank 2, alpha 2, scale 1, strength -0.5" in " ".join(
        said.split()
    )
    run(source=tmp_path / "two", to_official=tmp_path / "two.safetensors")
    kernel = open_weights(tmp_path / "two.safetensors")["blocks.1.self_attn.q.weight"]
    np.testing.assert_array_equal(kernel, np.ones((128, 128)))  # (1 - 0.5) * 2
    with pytest.raises(ValueError, match="alpha of one --lora"):
        run(source=film, lora=(str(lora),) * 2, lora_alpha=1.0, output=tmp_path / "three")


def test_every_key_that_does_not_fit_is_printed_before_the_refusal(film, tmp_path):
    tensors = zeros(dit_names(DIT))
    lost = [name for name in tensors if ".cross_attn." in name]
    kept = {name: values for name, values in tensors.items() if name not in lost}
    kept |= {"stray": kept["head.head.bias"], "head.head.bias": np.zeros(3, np.float32)}
    write_torch(film, kept)
    console = Console(file=io.StringIO(), width=100)
    with pytest.raises(
        PartialWeightsError, match=r"missing .* and \d+ more\); 1 unexpected \(stray"
    ):
        convert(Convert(source=film, output=tmp_path / "out"), console=console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert all(name in said for name in lost)
    assert "head.head.bias [3] for [64]" in said
    assert "nothing is missing" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either --output FOLDER or --to-official FILE"),
        ({"output": "out", "to_official": "x.pt"}, "and not both"),
        ({"to_official": "x.pt", "section": "generator"}, "takes a checkpoint folder as it is"),
        ({"output": "out", "keep_lora": True}, "give that too"),
        ({"output": "out", "lora_alpha": 0.0}, "give that too"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(film, tmp_path, options, message):
    places = {
        key: tmp_path / value for key, value in options.items() if key in ("output", "to_official")
    }
    with pytest.raises(ValueError, match=message):
        run(source=film, **(options | places))


def truncated(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def corrupted(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def forbidden(path: pathlib.Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("film/data.pkl", b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.")


def legacy(path: pathlib.Path) -> None:
    path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")


def misshapen(path: pathlib.Path) -> None:
    tensors = zeros(dit_names(DIT))
    write_torch(path, tensors | {"head.modulation": np.zeros((2, 128), np.float32)})


def missing(path: pathlib.Path) -> None:
    tensors = zeros(dit_names(DIT))
    del tensors["blocks.1.norm3.bias"]
    write_torch(path, tensors)


def unexpected(path: pathlib.Path) -> None:
    write_torch(path, zeros(dit_names(DIT)) | {"other_emb.0.weight": np.zeros(2, np.float32)})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, "ends too early"),
        (corrupted, "is damaged in member"),
        (forbidden, "asks for posix.system"),
        (legacy, "old format"),
        (misshapen, "1 of another shape (head.modulation [2, 128] for [1, 2, 128])"),
        (missing, "1 missing (blocks.1.norm3.bias)"),
        (unexpected, "1 unexpected (other_emb.0.weight)"),
        (pathlib.Path.unlink, "There is no file"),
    ],
)
def test_bad_files_are_said_in_one_line(shotstream, film, tmp_path, spoil, message):
    spoil(film)
    status, said = shotstream(film, "-o", tmp_path / "out")
    assert status == 2
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bad_folders_are_said_in_one_line(shotstream, film, wan, tmp_path):
    run(source=film, output=tmp_path / "made")
    for words, message in (
        ((tmp_path / "made", "-o", tmp_path / "out"), "is a checkpoint already"),
        ((wan / "google", "-o", tmp_path / "out"), "no folder of a known kind"),
        ((wan, "-o", tmp_path / "out"), "has no diffusion_pytorch_model.safetensors"),
        ((film, "-o", tmp_path / "made"), "exists already"),
        ((wan, "--to-official", tmp_path / "x.pt"), "has no config.json"),
    ):
        status, said = shotstream(*words)
        assert (status, said.count("\n")) == (2, 1), said
        assert message in said
    (wan / "google" / "umt5-xxl" / "tokenizer.json").unlink()
    status, said = shotstream(film, "--wan", wan, "-o", tmp_path / "out")
    assert status == 2
    assert "no google/umt5-xxl/tokenizer.json" in said


def test_a_damaged_checkpoint_is_said_in_one_line(shotstream, film, tmp_path):
    run(source=film, output=tmp_path / "made")
    listed = json.loads((tmp_path / "made" / "files.json").read_text())
    corrupted(tmp_path / "made" / max(listed, key=lambda name: listed[name]["bytes"]))
    status, said = shotstream(tmp_path / "made", "--to-official", tmp_path / "x.pt")
    assert (status, said.count("\n")) == (2, 1)
    assert "it is damaged" in said
    assert not (tmp_path / "x.pt").exists()


def test_what_went_well_has_status_zero(shotstream, film, tmp_path):
    assert shotstream(film, "--output", tmp_path / "out")[0] == 0


def test_a_checkpoint_is_stored_again_in_half_the_space(wan, film, tmp_path, run, refused):
    made, again = tmp_path / "made", tmp_path / "again"
    assert run("convert", film, "--wan", wan, "-o", made)[0] == 0
    assert run("convert", made, "-o", again, "--dtype", "bfloat16")[0] == 0
    assert read_config(again) == read_config(made)
    for name in ("dit", "vae", "text"):
        before, after = stored_leaves(made, name), stored_leaves(again, name)
        assert before.keys() == after.keys()
        assert {leaf.dtype.name for leaf in after.values()} == {"bfloat16"}
    assert (again / "tokenizer" / "tokenizer.json").is_file()
    said = refused("convert", made, "-o", tmp_path / "more", "--dtype", "float32", "--wan", wan)
    assert "is whole: leave out --wan" in said
