"""README is short, and the files beside it agree with the package and with the gate."""

import pathlib
import re

import yaml

import shotstream_jax

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GATE = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_readme_is_short_and_begins_with_two_commands():
    assert len(README.splitlines()) <= 150
    assert README.index("launch/local.sh film") < README.index("launch/local.sh test")
    assert README.count("![") == 1


def test_the_gate_runs_the_commands_of_the_readme():
    for verb in ("film", "test"):
        assert f"launch/local.sh {verb}" in GATE


def test_the_changelog_has_the_version_and_what_is_not_released_yet():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert versions[1] == shotstream_jax.__version__


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == shotstream_jax.__version__
    assert citation["title"] == "shotstream_jax"
    (paper,) = citation["references"]
    assert "2603.25746" in paper["url"]


def test_what_is_checked_before_a_commit_is_what_the_gate_checks():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (local,) = config["repos"]
    for hook in local["hooks"]:
        program = hook["entry"].removeprefix(".venv/bin/").split(" --")[0]
        assert program in GATE, hook["id"]


def test_the_hosted_workflow_runs_the_gate_and_nothing_else():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
