"""Where compiled programs are kept, and that a cache which cannot be used is no error."""

import pathlib

import jax
import pytest
from jax._src import compilation_cache as inner

from shotstream_jax import compile_cache, open_model
from shotstream_jax.compile_cache import cache_folder, use_compile_cache


@pytest.fixture
def unset():
    """No cache is chosen while the test runs."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compile_cache.compilation_cache.reset_cache()


def test_xdg_is_honoured():
    """Kind: a folder of the user's choice was not asked for."""
    assert cache_folder({"XDG_CACHE_HOME": "/x"}) == pathlib.Path("/x/shotstream_jax/programs")
    home = cache_folder({})
    assert home is not None
    assert home.parts[-3:] == (".cache", "shotstream_jax", "programs")
    # The specification: a relative path counts as none.
    assert cache_folder({"XDG_CACHE_HOME": "x"}) == home


def test_no_home_is_no_folder(monkeypatch):
    """Kind: a user without a home, or in no list of users, ended every verb."""

    def no_home(path: pathlib.Path) -> pathlib.Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "expanduser", no_home)
    assert cache_folder({}) is None


def test_programs_are_kept_from_python_too(unset, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    open_model("tiny")
    folder = tmp_path / "shotstream_jax" / "programs"
    assert jax.config.jax_compilation_cache_dir == str(folder)
    jax.jit(lambda x: x * 3 + 1)(2.0)
    assert any(folder.iterdir())


def test_a_folder_that_cannot_be_made_is_one_line(unset, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    reason = use_compile_cache()
    assert "not a directory" in reason
    assert "\n" not in reason
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_was_chosen_stays(monkeypatch, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert use_compile_cache() == ""
    assert jax.config.jax_compilation_cache_dir == before


def test_a_full_disk_is_silent(unset, monkeypatch, tmp_path, recwarn):
    """Kind: forty lines of warnings for a cache that only saves time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_compile_cache()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inner, "put_executable_and_time", full)
    assert jax.jit(lambda x: x * 5 + 2)(2.0) == 12
    assert not [warning for warning in recwarn if "persistent" in str(warning.message)]
