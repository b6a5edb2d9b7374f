"""`shotstream check`: what it prints, what it warns of, and how it ends."""

import dataclasses
import json
import pathlib
import re
import time

import pytest

from shotstream_jax.cli.check import FilmedWith, check, examine
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.perf.device_rate import DeviceRate
from shotstream_jax.presets import PRESETS
from shotstream_jax.story import FrameRef, StoryError, load_story, overridden, read_story

RELEASE = PRESETS["wan-1.3b"]

DEMO = pathlib.Path(__file__).parents[2] / "configs" / "stories" / "demo.yaml"


def release(config=RELEASE, *, tflops: float = 400.0, **more) -> FilmedWith:
    return FilmedWith(config=config, rate=DeviceRate(flops=tflops * 1e12, reason="given"), **more)


def check_file(path, filmed_with: FilmedWith, **how) -> int:
    return check(lambda: read_story(path), filmed_with, **how)


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
        assert check_file(story(), release(count_tokens=count_words)) == 0
        printed = capsys.readouterr().out
        rows = {line.split()[0]: line for line in printed.splitlines() if "/512" in line}
        assert list(rows) == ["s1", "run", "s3"]
        assert "[red]It[/red] sits." in rows["s1"]
        assert "goes on" in rows["run"]
        # Video frames of 7 chunks after a cut, and of 2 more on the same camera.
        assert "cut, sees s1 0 40 80, run 0 12 23" in rows["s3"]
        assert "[bold]Tagged[/bold]" in printed

    def test_says_that_it_estimates(self, story, capsys):
        check_file(story(), release(tflops=100.0))
        printed = capsys.readouterr().out
        assert "Estimate, not a measurement" in printed
        assert "at 100 TFLOP/s" in printed
        assert "Tokens were not counted" in printed

    def test_the_demo_is_in_order(self, capsys):
        assert check_file(DEMO, release()) == 0
        assert "Warning" not in capsys.readouterr().out


class TestWarnings:
    def warnings(self, path, **options):
        return examine(read_story(path), release(**options)).warnings

    def test_a_story_in_order_has_none(self):
        assert self.warnings(DEMO, count_tokens=count_words) == ()

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
        assert check_file(story(), release(count_tokens=count_words), as_json=True) == 0
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
        assert check_file(path, release(), as_json=True) == 2
        report = json.loads(capsys.readouterr().out)
        assert report["ok"] is False
        assert {(p["where"], p["field"]) for p in report["problems"]} == {
            (f"{path}:4", "shots[0].caption"),
            (f"{path}:4", "shots[0].chunks"),
        }


class TestRefusals:
    """Kind: `check` said yes to what `generate` refuses; both refuse it, with the same status."""

    @pytest.mark.parametrize(("words", "is_refused"), [(511, False), (512, False), (513, True)])
    def test_a_caption_that_is_too_long(self, story, words, is_refused, capsys):
        # The global caption is two words, and the shot's label clings to its first word.
        caption = " ".join(["miau"] * (words - 2))
        path = story(f"version: 1\ntitle: A\nglobal: 'A cat. '\nshots:\n  - caption: {caption}\n")
        status = check_file(path, release(count_tokens=count_words))
        assert status == (2 if is_refused else 0)
        if is_refused:
            said = capsys.readouterr().err
            assert said.startswith(f"{path}:5: shots[0].caption: 513 tokens")
            assert "reads 512; take out 1" in said

    def test_a_camera_that_runs_beyond_its_positions(self, story, capsys):
        path = story("version: 1\ntitle: A\nshots: [{caption: a, chunks: 900}]\n")
        assert check_file(path, release()) == 2
        assert f"{path}:3: shots[0]: A take would end 900 chunks" in capsys.readouterr().err
        # Since format 2 positions are turned back, and reach on.
        path = story("version: 2\ntitle: A\nshots: [{caption: a, chunks: 900}]\n")
        assert check_file(path, release()) == 0

    def test_a_size_that_does_not_fit_with_one_that_would(self, story, capsys):
        path = story(
            "version: 1\ntitle: A\ndefaults: {size: [2048, 4096]}\nshots: [{caption: a}]\n"
        )
        room = 60_000_000_000
        assert check_file(path, release(room=room, platform="gpu")) == 2
        said = capsys.readouterr().err
        assert f"{path}:3: defaults.size: 2048 x 4096 takes about" in said
        assert "60.0 GB" in said
        height, width = map(int, re.search(r"\(--size (\d+) (\d+)\)", said).groups())
        assert 256 < height < 2048
        smaller = dataclasses.replace(
            read_story(path), story=overridden(load_story(path), size=(height, width))
        )
        assert check(lambda: smaller, release(room=room, platform="gpu")) == 0

    def test_a_model_that_fits_at_no_size(self, story, capsys):
        assert check_file(story(), release(room=10**9, platform="gpu")) == 2
        assert "no size would" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ("size: [40, 80]", "defaults.size[0]: 40 is not a multiple of 16"),
            ("size: [4096, 4096], chunks: 2", "4096 x 4096 takes about"),
        ],
    )
    def test_the_command_says_so_too(self, story, run, change, says):
        path = story(f"version: 2\ntitle: A\ndefaults: {{{change}}}\nshots: [{{caption: a}}]\n")
        status, _, err = run("check", path)
        assert status == 2
        assert says in err


class TestSettings:
    """Kind: a story was checked for another film than `generate` makes of it."""

    @pytest.fixture
    def unsaid(self, story):
        return story("version: 2\ntitle: A\nshots:\n- {caption: it waits., seed: 4, chunks: 1}\n")

    def test_what_a_story_does_not_say_is_the_models_own(self, unsaid, run):
        _, out, _ = run("check", unsaid, "--json")
        report = json.loads(out)
        assert (report["size"], report["fps"]) == ([48, 80], 8)
        _, out, _ = run("check", unsaid, "--json", "--preset", "wan-1.3b")
        assert (json.loads(out)["size"], json.loads(out)["fps"]) == ([480, 832], 16)

    def test_options_go_before_the_story(self, unsaid, run):
        options = ["--size", 96, 160, "--seed", 9, "--fps", 12, "--chunks", 3]
        _, out, _ = run("check", unsaid, "--json", *options)
        report = json.loads(out)
        assert (report["size"], report["fps"]) == ([96, 160], 12)
        assert (report["shots"][0]["seed"], report["shots"][0]["chunks"]) == (9, 3)

    def test_a_setting_that_no_story_may_have_is_refused(self, unsaid, run):
        status, _, err = run("check", unsaid, "--fps", 0)
        assert status == 2
        assert "fps: 0 is below 1" in err

    def test_words_that_the_model_does_not_know_are_warned_of(self, story, run):
        path = story("version: 2\ntitle: A\nshots:\n- caption: a purple dragon waits.\n")
        status, out, _ = run("check", path, "--json")
        assert status == 0
        assert "does not know dragon;" in json.loads(out)["warnings"][0]["message"]

    def test_quiet_prints_problems_alone(self, unsaid, story, run):
        assert run("check", unsaid, "--quiet") == (0, "", "")
        status, out, err = run("check", story("version: 9\n"), "--quiet")
        assert (status, out) == (2, "")
        assert "version: 9 is not known" in err


def test_the_longest_story_is_checked_in_seconds(story):
    """Kind: time that grows with the film, where every chunk beyond the window costs the same."""
    shots = "".join(f"- {{caption: a, chunks: {900 + k % 100}}}\n" for k in range(300))
    began = time.perf_counter()
    report = examine(read_story(story(f"version: 2\ntitle: A\nshots:\n{shots}")), release())
    assert time.perf_counter() - began < 15
    assert len(report.estimate.shot_flops) == 300


def test_captions_are_whole_however_narrow_the_terminal(story, capsys, monkeypatch):
    """Kind: text that is to be checked was cut to fit."""
    words = [f"word{k}" for k in range(60)]
    path = story(f"version: 2\ntitle: A\nshots:\n- caption: {' '.join(words)}\n")
    for columns in (60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        check_file(path, release())
        out = capsys.readouterr().out
        assert "…" not in out
        assert [word for word in words if word not in out] == []


def test_the_miniature_is_estimated_in_seconds_of_this_device(run):
    """Kind: an estimate for another device: "0.0 s at 400 TFLOP/s"."""
    _, out, _ = run("check", DEMO, "--json")
    estimate = json.loads(out)["estimate"]
    assert 0.05 < estimate["seconds"] < 120
    assert "this CPU" in estimate["rate"]


class TestBadStories:
    def test_every_problem_is_one_line(self, story, capsys):
        path = story(
            "version: 1\ntitle: A\nshots:\n  - captoin: One\n  - {caption: b, chunks: 0}\n"
        )
        assert check_file(path, release()) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert [line.split(": ")[:2] for line in printed.err.splitlines()] == [
            [f"{path}:4", "shots[0].captoin"],
            [f"{path}:4", "shots[0].caption"],
            [f"{path}:5", "shots[1].chunks"],
        ]

    def test_a_file_that_is_not_there(self, tmp_path, capsys):
        assert check_file(tmp_path / "none.yaml", release()) == 2
        assert "cannot be read" in capsys.readouterr().err

    def test_a_size_that_the_networks_cannot_divide(self, story):
        path = story("version: 1\ntitle: A\ndefaults: {size: [16, 32]}\nshots: [{caption: a}]\n")
        config = dataclasses.replace(RELEASE, dit=DiTConfig(patch=(4, 4)))
        with pytest.raises(
            StoryError, match=r"story\.yaml:3: defaults\.size: .* multiple of 32; try 32"
        ):
            examine(read_story(path), release(config))


def test_context_follows_the_window(story):
    window = dataclasses.replace(RELEASE.rollout.window, context=2)
    rollout = dataclasses.replace(RELEASE.rollout, window=window)
    config = dataclasses.replace(RELEASE, rollout=rollout)
    rows = examine(read_story(story()), release(config)).rows
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
