"""`shotstream check`: what it prints, what it warns of, and how it ends."""

import dataclasses
import json
import pathlib

import pytest

from shotstream_jax.cli.check import check, examine
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.presets import PRESETS
from shotstream_jax.story import FrameRef, StoryError, read_story

RELEASE = PRESETS["wan-1.3b"]

DEMO = pathlib.Path(__file__).parents[2] / "configs" / "stories" / "demo.yaml"
RATE = 4e14

GOOD = """version: 1
title: "[bold]Tagged[/bold]"
global: "A cat. "
shots:
  - caption: "[red]It[/red] sits."
  - {id: run, caption: It runs., seed: 3, chunks: 2, transition: continue}
  - caption: It naps.
"""


def count_words(caption: str) -> int:
    return len(caption.split())


@pytest.fixture
def story(tmp_path):
    def story(text: str = GOOD) -> pathlib.Path:
        path = tmp_path / "story.yaml"
        path.write_text(text)
        return path

    return story


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


class TestTable:
    def test_has_a_row_for_each_shot(self, story, capsys):
        assert check(str(story()), RELEASE, count_tokens=count_words) == 0
        printed = capsys.readouterr().out
        rows = {line.split()[0]: line for line in printed.splitlines() if "/512" in line}
        assert list(rows) == ["s1", "run", "s3"]
        assert "[red]It[/red] sits." in rows["s1"]
        assert "goes on" in rows["run"]
        # Video frames of 7 chunks after a cut, and of 2 more on the same camera.
        assert "cut, sees s1 0 40 80, run 0 12 23" in rows["s3"]
        assert "[bold]Tagged[/bold]" in printed

    def test_says_that_it_estimates(self, story, capsys):
        check(str(story()), RELEASE, tflops=100.0)
        printed = capsys.readouterr().out
        assert "Estimate, not a measurement" in printed
        assert "at 100 TFLOP/s" in printed
        assert "Tokens were not counted" in printed

    def test_the_demo_is_in_order(self, capsys):
        assert check(str(DEMO), RELEASE) == 0
        assert "Warning" not in capsys.readouterr().out


class TestWarnings:
    def warnings(self, path, **options):
        return examine(read_story(path), RELEASE, RATE, **options).warnings

    def test_a_story_in_order_has_none(self):
        assert self.warnings(DEMO, count_tokens=count_words) == ()

    @pytest.mark.parametrize(("words", "warned"), [(511, False), (512, False), (513, True)])
    def test_a_caption_that_is_too_long(self, story, words, warned):
        # The global caption is two words, and the shot's label clings to its first word.
        caption = " ".join(["miau"] * (words - 2))
        path = story(f"version: 1\ntitle: A\nglobal: 'A cat. '\nshots:\n  - caption: {caption}\n")
        found = self.warnings(path, count_tokens=count_words)
        assert bool(found) == warned
        if warned:
            assert str(found[0]).startswith(f"{path}:5: shots[0].caption: 513 tokens")
            assert "reads 512; take out 1" in found[0].message

    def test_six_hundred_tokens_are_a_warning_and_nothing_is_cut(self, story, capsys):
        caption = " ".join(["miau"] * 600)
        path = story(f"version: 1\ntitle: A\nshots:\n  - caption: {caption}\n")
        assert check(str(path), RELEASE, count_tokens=count_words) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert f"Warning: {path}:4: shots[0].caption: 600 tokens" in printed
        assert read_story(path).story.shots[0].caption == caption

    def test_a_missing_global_caption(self, story):
        path = story("version: 1\ntitle: A\nshots: [{caption: a}, {caption: b}]\n")
        (found,) = self.warnings(path)
        assert str(found).startswith(f"{path}:1: global: missing")
        alone = story("version: 1\ntitle: A\nshots: [{caption: a}]\n")
        assert self.warnings(alone) == ()

    def test_a_camera_that_runs_beyond_its_window(self, story):
        shots = "  - {caption: a, chunks: 4}\n  - {caption: b, chunks: 4, transition: continue}\n"
        path = story(f"version: 1\ntitle: A\nglobal: x\nshots:\n{shots}")
        (found,) = self.warnings(path)
        assert str(found).startswith(f"{path}:6: shots[1]: 8 chunks since the last cut")
        assert "looks back over 7" in found.message


class TestJson:
    def test_says_the_same_to_a_machine(self, story, capsys):
        assert check(str(story()), RELEASE, as_json=True, count_tokens=count_words) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["ok"] is True
        assert [shot["id"] for shot in report["shots"]] == ["s1", "run", "s3"]
        assert [shot["tokens"] for shot in report["shots"]] == [4, 4, 4]
        assert report["shots"][2]["context"] == [[0, 0], [0, 40], [0, 80], [1, 0], [1, 12], [1, 23]]
        assert report["seconds"] == pytest.approx((81 + 24 + 81) / 16)
        assert report["estimate"]["seconds"] == pytest.approx(
            sum(shot["estimated_seconds"] for shot in report["shots"])
        )
        assert report["estimate"]["memory_bytes"] == sum(report["estimate"]["memory"].values())

    def test_problems_too(self, story, capsys):
        path = story("version: 1\ntitle: A\nshots:\n  - {caption: '', chunks: 0}\n")
        assert check(str(path), RELEASE, as_json=True) == 2
        report = json.loads(capsys.readouterr().out)
        assert report["ok"] is False
        assert {(p["where"], p["field"]) for p in report["problems"]} == {
            (f"{path}:4", "shots[0].caption"),
            (f"{path}:4", "shots[0].chunks"),
        }


class TestBadStories:
    def test_every_problem_is_one_line(self, story, capsys):
        path = story(
            "version: 1\ntitle: A\nshots:\n  - captoin: One\n  - {caption: b, chunks: 0}\n"
        )
        assert check(str(path), RELEASE) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert [line.split(": ")[:2] for line in printed.err.splitlines()] == [
            [f"{path}:4", "shots[0].captoin"],
            [f"{path}:4", "shots[0].caption"],
            [f"{path}:5", "shots[1].chunks"],
        ]

    def test_a_file_that_is_not_there(self, tmp_path, capsys):
        assert check(str(tmp_path / "none.yaml"), RELEASE) == 2
        assert "cannot be read" in capsys.readouterr().err

    def test_a_size_that_the_networks_cannot_divide(self, story):
        path = story("version: 1\ntitle: A\ndefaults: {size: [16, 32]}\nshots: [{caption: a}]\n")
        config = dataclasses.replace(RELEASE, dit=DiTConfig(patch=(4, 4)))
        with pytest.raises(
            StoryError, match=r"story\.yaml:3: defaults\.size: .* multiple of 32; try 32"
        ):
            examine(read_story(path), config, RATE)


def test_context_follows_the_window(story):
    window = dataclasses.replace(RELEASE.rollout.window, context=2)
    rollout = dataclasses.replace(RELEASE.rollout, window=window)
    config = dataclasses.replace(RELEASE, rollout=rollout)
    rows = examine(read_story(story()), config, RATE).rows
    assert rows[2].context == (FrameRef(0, 0), FrameRef(1, 0))


def test_command_line_counts_with_the_models_own_tokenizer(run):
    status, out, _ = run("check", DEMO, "--json", "--tflops", 50)
    report = json.loads(out)
    assert status == 0
    assert report["estimate"]["assumed_flops_per_second"] == 50e12
    assert all(0 < shot["tokens"] <= report["token_limit"] for shot in report["shots"])


def test_command_line_estimates_by_the_preset(run):
    _, tiny, _ = run("check", DEMO, "--json")
    _, large, _ = run("check", DEMO, "--json", "--preset", "wan-1.3b")
    tiny, large = (json.loads(out)["estimate"]["flops"] for out in (tiny, large))
    assert large > 100 * tiny
