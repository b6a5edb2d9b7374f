"""The command around its verbs: no traceback, no verb ended by its output, help, misspelt verbs."""

import errno
import io
import os
import pathlib
import shlex
import subprocess
import sys

import pytest

from shotstream_jax.cli import main as command
from shotstream_jax.cli.failures import explain
from shotstream_jax.cli.help import VERBS, no_such_verb
from shotstream_jax.cli.main import main
from shotstream_jax.cli.output import SafeStream, safe_output, status_of

ROOT = pathlib.Path(__file__).parents[2]


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash; SHOTSTREAM stands for the command."""
    shotstream = f"{shlex.quote(sys.executable)} -m shotstream_jax"
    return subprocess.run(
        ["bash", "-c", "set -o pipefail; " + line.replace("SHOTSTREAM", shotstream)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
        timeout=120,
    )


@pytest.fixture
def failing(monkeypatch):
    """Make `shotstream words` raise an exception."""

    def failing(error: BaseException) -> None:
        def verb() -> int:
            raise error

        monkeypatch.setattr(command, "find_verb", lambda name: verb)

    return failing


class TestUnforeseen:
    """Kind: an exception that no verb expects reached the user as a traceback."""

    @pytest.fixture(autouse=True)
    def _logs(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    @pytest.mark.parametrize(
        "error",
        [KeyError("x"), TypeError("a\nb"), RuntimeError(), AssertionError("no"), RecursionError()],
        ids=lambda error: type(error).__name__,
    )
    def test_is_one_line_with_a_log(self, failing, capsys, tmp_path, error):
        failing(error)
        assert main(["words"]) == 70
        said = capsys.readouterr().err
        (log,) = tmp_path.glob("shotstream_*.log")
        assert said.count("\n") == 1
        assert said.startswith(f"shotstream: not foreseen: {type(error).__name__}: ")
        assert str(log) in said
        written = log.read_text(encoding="utf-8")
        assert "Traceback (most recent call last)" in written
        assert "'words'" in written

    def test_a_value_error_of_a_library_is_no_bad_input(self, capsys, monkeypatch):
        import numpy as np

        monkeypatch.setattr(command, "find_verb", lambda name: lambda: np.zeros(2).reshape(3))
        # numpy raises it from C: the innermost frame is this test's, as it would be the package's.
        assert main(["words"]) in (2, 70)
        monkeypatch.setattr(command, "find_verb", lambda name: lambda: np.stack([]))
        assert main(["words"]) == 70
        assert "Traceback" not in capsys.readouterr().err

    def test_is_still_one_line_where_no_log_can_be_written(self, failing, capsys, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
        failing(KeyError("x"))
        assert main(["words"]) == 70
        assert "no log could be written" in capsys.readouterr().err

    def test_a_traceback_is_there_for_those_who_ask(self, failing, monkeypatch):
        monkeypatch.setenv("SHOTSTREAM_TRACEBACK", "1")
        failing(KeyError("x"))
        with pytest.raises(KeyError):
            main(["words"])


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "out of memory: make --size smaller"),
        (MemoryError("Unable to allocate 5.2 GiB for an array"), "out of memory, 5.2 GiB more"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123456 bytes."),
            "out of memory, 123456 bytes more",
        ),
    ],
)
def test_no_memory_is_one_line_that_says_what_to_reduce(failing, capsys, error, says):
    """Kind: a device's own error of forty lines, and nothing to do next."""
    failing(error)
    assert main(["words"]) == 71
    said = capsys.readouterr().err
    assert said.startswith(f"shotstream: {says}")
    assert said.count("\n") == 1
    assert "--chunks" in said


def test_errors_of_the_system_and_of_this_package_are_bad_input():
    assert explain(FileNotFoundError(2, "No such file", "x"), ())[1] == 2
    assert explain(ValueError("too long"), ()) == ("too long", 2)


class Broken(io.StringIO):
    """A stream that takes some characters and then fails."""

    def __init__(self, takes: int, error: Exception):
        super().__init__()
        self._left, self._error = takes, error

    def write(self, text: str) -> int:
        self._left -= len(text)
        if self._left < 0:
            raise self._error
        return super().write(text)


class TestOutput:
    """Kind: output that cannot be printed ended a film that was being made."""

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0),
            (OSError(errno.ENOSPC, "No space left on device"), 74),
            (OSError(errno.EIO, "Input/output error"), 74),
            (ValueError("I/O operation on closed file."), 74),
        ],
    )
    def test_a_verb_goes_on_to_its_end(self, monkeypatch, error, status):
        done = []

        def verb() -> None:
            for _ in range(100):
                sys.stdout.write("a line\n")
                sys.stderr.write("another\n")
                sys.stdout.flush()
            done.append(True)

        monkeypatch.setattr(command, "find_verb", lambda name: verb)
        monkeypatch.setattr(sys, "stdout", Broken(20, error))
        assert main(["words"]) == status
        assert done == [True]

    def test_streams_are_what_they_were_afterwards(self):
        before = sys.stdout, sys.stderr
        with safe_output() as (out, err):
            assert (sys.stdout, sys.stderr) == (out, err)
        assert (sys.stdout, sys.stderr) == before

    def test_streams_that_were_never_open(self, monkeypatch):
        monkeypatch.setattr(sys, "stdout", None)
        with safe_output() as (out, err):
            sys.stdout.write("x")
            sys.stdout.flush()
        assert status_of(0, out, err) == 0

    def test_letters_that_a_stream_does_not_have_are_numbers(self):
        bytes_ = io.BytesIO()
        stream = SafeStream(io.TextIOWrapper(bytes_, encoding="ascii"))
        stream.write("灯台")
        stream.flush()
        assert bytes_.getvalue() == b"\\u706f\\u53f0"

    @pytest.mark.parametrize("line", ["SHOTSTREAM --help | head -1", "SHOTSTREAM --help | true"])
    def test_a_reader_that_goes_away(self, line):
        done = shell(line)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
    def test_closed_descriptors(self, closed, tmp_path):
        done = shell(f"SHOTSTREAM --version {closed}")
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no /dev/full")
    def test_a_full_disk_is_told_at_the_end(self):
        done = shell("SHOTSTREAM --help > /dev/full")
        assert done.returncode == 74
        assert "standard output could not be written: No space left" in done.stderr
        assert "Exception ignored" not in done.stderr


def test_no_home_no_user_and_a_reader_that_goes_away(tmp_path):
    """Kind: a film needs neither a home folder nor a name in the list of users."""
    done = shell(
        "unset HOME XDG_CACHE_HOME JAX_COMPILATION_CACHE_DIR; "
        "SHOTSTREAM check configs/stories/demo.yaml | head -1",
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


class TestVerbs:
    def test_version(self, capsys):
        import shotstream_jax

        assert main(["--version"]) == 0
        assert capsys.readouterr().out == f"shotstream {shotstream_jax.__version__}\n"

    @pytest.mark.parametrize(
        ("word", "says"),
        [
            ("generat", "did you mean generate?"),
            ("evaluate", "did you mean eval?"),
            ("story.yaml", "shotstream generate story.yaml -o film"),
            ("xyzzy", "the verbs are demo, check"),
        ],
    )
    def test_a_word_that_is_no_verb(self, capsys, word, says):
        assert main([word]) == 2
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1
        assert says in no_such_verb(word)

    def test_help_fits_a_terminal_and_groups_all_verbs(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "100")
        main(["--help"])
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= 100
        for heading in ("Film a story:", "Have a model:", "Examples:", "Exit status:"):
            assert heading in shown
        assert all(f"\n  {verb} " in shown for verb in VERBS)

    def test_completion_knows_verbs(self, capsys):
        assert main(["completion", "bash", "--verbs-only"]) == 0
        script = capsys.readouterr().out
        assert "shotstream" in script
        assert all(verb in script for verb in VERBS)

    def test_completion_knows_options(self, capsys):
        assert main(["completion", "zsh"]) == 0
        assert "--whole-shots" in capsys.readouterr().out
