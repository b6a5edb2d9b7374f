"""Every block of README.md and docs/ is run, or says why not."""

import pathlib

import pytest

from tests.docs.blocks import (
    NEEDS,
    PAGES,
    PARSED,
    ROOT,
    RUN,
    SHOWN,
    Block,
    blocks_of,
    commands_of,
    parse_blocks,
    parse_command,
    run_block,
    workspace,
)

ALL = {str(page.relative_to(ROOT)): blocks_of(page) for page in PAGES}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    # Commands would otherwise move this process's compiled programs to the home folder.
    programs = ROOT / ".pytest_cache" / "programs"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(programs))
    return tmp_path


@pytest.mark.parametrize("page", [page for page, blocks in ALL.items() if blocks])
def test_what_a_page_tells_to_run_runs(page, folder):
    with workspace(folder):
        for block in ALL[page]:
            run_block(block)


@pytest.mark.parametrize("page", ALL)
def test_blocks_name_a_language_and_what_they_need(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(ALL[page]), "a fence that is not closed, or not alone"
    assert text.count("<!-- needs:") == sum(block.needs is not None for block in ALL[page])
    for block in ALL[page]:
        assert block.language in RUN | PARSED | SHOWN, block.place
        assert block.needs is None or block.needs in NEEDS, block.place
        assert block.needs is None or block.language in RUN, block.place


def test_all_python_is_run():
    python = [block for page in ALL.values() for block in page if block.language == "python"]
    assert len(python) >= 3
    assert all(block.is_run for block in python)


def test_half_of_what_a_newcomer_reads_is_run():
    """Tables of figures cite commands of hours; the pages that are read first do not."""
    first = ("README.md", "docs/guides/film.md", "docs/how/")
    pages = [blocks for page, blocks in ALL.items() if page.startswith(first)]
    blocks = [block for page in pages for block in page if block.language in RUN]
    assert 2 * sum(block.is_run for block in blocks) >= len(blocks) > 0


def of(text: str) -> Block:
    (block,) = parse_blocks(text, "page.md")
    return block


def test_a_block_knows_its_place_title_and_needs():
    text = 'Words.\n\n  <!-- needs: gpu -->\n  ```bash title="a.sh"\n  shotstream x\n  ```\n'
    block = of(text)
    assert (block.line, block.language, block.text) == (4, "bash", "shotstream x\n")
    assert (block.needs, block.title) == ("gpu", "a.sh")


def test_commands_lose_comments_variables_and_line_ends():
    block = of("```bash\nEXTRAS=cuda A_B=1 bash x.sh  # why\n\nshotstream a \\\n  -o 'b c'\n```\n")
    assert commands_of(block) == [["bash", "x.sh"], ["shotstream", "a", "-o", "b c"]]


def test_a_command_that_no_test_can_run_must_say_what_it_needs():
    with pytest.raises(AssertionError, match=r"page.md:1: no test can run `rm -rf film`"):
        run_block(of("```bash\nrm -rf film\n```\n"))
    run_block(of("<!-- needs: gpu -->\n```bash\nrm -rf film\n```\n"))


def test_a_command_that_fails_fails_its_page(folder):
    with workspace(folder), pytest.raises(AssertionError, match="ended with status 2"):
        run_block(of("```bash\nshotstream check nowhere.yaml\n```\n"))


def test_python_that_fails_fails_its_page():
    with pytest.raises(ZeroDivisionError):
        run_block(of("```python\n1 / 0\n```\n"))
    with pytest.raises(SyntaxError):
        run_block(of("<!-- needs: gpu -->\n```python\n1 /\n```\n"))


def test_options_of_commands_that_are_not_run_exist(folder):
    with workspace(folder):
        parse_command(["shotstream", "generate", "story.yaml", "-o", "film"])
        parse_command(["shotstream", "train", "configs/tiny_vae.py", "--steps", "3"])
        with pytest.raises(AssertionError, match="refused by its own parser"):
            parse_command(["shotstream", "generate", "story.yaml", "--out", "film"])
        with pytest.raises(AssertionError, match="--stepz 3` is refused by its own parser"):
            parse_command(["shotstream", "train", "configs/tiny_vae.py", "--stepz", "3"])


def test_a_titled_block_becomes_a_file(folder):
    with workspace(folder):
        run_block(of('```yaml title="story.yaml"\nversion: 1\n```\n'))
        assert pathlib.Path("story.yaml").read_text(encoding="utf-8") == "version: 1\n"
