"""What importing costs: each trip in a process of its own, which then lists its modules."""

import ast
import json
import os
import pathlib
import subprocess
import sys

import pytest

import shotstream_jax

ROOT = pathlib.Path(__file__).parents[1]
TRAINING_LIBRARIES = {"optax", "grain", "tensorflow_datasets", "array_record", "tensorflow"}
TRAINING_ROOMS = {f"shotstream_jax.{room}" for room in ("train", "evaluation", "perf.bench")}


def modules_after(code: str) -> set[str]:
    """Names of all modules that a fresh interpreter holds after some code."""
    listing = "import json, sys; print(json.dumps(list(sys.modules)))"
    programs = ROOT / ".pytest_cache" / "programs"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{listing}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(programs)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_imports_no_jax():
    loaded = modules_after("import shotstream_jax")
    assert not loaded & {"jax", "numpy", "flax", "orbax", *TRAINING_LIBRARIES}


@pytest.mark.parametrize("words", [["--help"], [], ["--version"], ["generat"]])
def test_help_is_there_before_jax_is(words):
    loaded = modules_after(f"from shotstream_jax.cli.main import main\nmain({words})")
    heavy = {"jax", "numpy", "flax", "orbax", "rich", "tyro", *TRAINING_LIBRARIES}
    assert not loaded & heavy


def test_help_names_every_verb_in_the_words_of_its_docstring(capsys):
    from shotstream_jax.cli.help import VERBS
    from shotstream_jax.cli.main import main

    assert main(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for verb in VERBS:
        assert f" {verb} " in shown
    assert "Convert official weights" in shown


def test_filming_imports_none_of_the_training_libraries(tmp_path):
    arguments = ["generate", "configs/stories/demo.yaml", "-o", str(tmp_path / "film")]
    loaded = modules_after(
        f"from shotstream_jax.cli.main import main\nassert main({arguments}) == 0"
    )
    assert (tmp_path / "film" / "film.mp4").exists()
    assert "jax" in loaded
    assert not loaded & TRAINING_LIBRARIES
    assert not {name for name in loaded if name.startswith(tuple(TRAINING_ROOMS))}


def test_every_public_name_is_found_where_type_checkers_find_it():
    """The imports that type checkers see, and the table by which names are found at run time."""
    tree = ast.parse(pathlib.Path(shotstream_jax.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shotstream_jax")
        for alias in node.names
    }
    assert sorted(seen) == sorted(shotstream_jax.__all__)
    for name, module in seen.items():
        assert getattr(shotstream_jax, name) is getattr(sys.modules[module], name)


def test_a_name_that_is_not_public_is_refused_as_python_does():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        shotstream_jax.nothing  # noqa: B018
    assert set(shotstream_jax.__all__) <= set(dir(shotstream_jax))
