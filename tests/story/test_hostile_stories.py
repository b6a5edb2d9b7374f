"""Hostile stories: every text is a story or is refused, in lines and at once, without a traceback.

The kind of fault: a library under the reader (PyYAML's constructors, Python's numbers, CSV cells)
raises something else than it documents, or takes time that grows faster than the text; and text
that is dropped without a word.
"""

import io
import pathlib
import sys
import tempfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shotstream_jax.story import STORY_SUFFIXES, Story, StoryError, load_story, read_story
from shotstream_jax.story.document import MOST_BYTES
from shotstream_jax.story.schema import most_shots

CORPUS = pathlib.Path(__file__).parents[1] / "corpus" / "stories"
FILES = sorted(CORPUS.iterdir())

GOOD = {"a.json", "bc.csv", "good.yaml", "plain.csv", "plain_semicolons.csv"}

HEAD = "version: 2\ntitle: A\n"

LONGEST_SECONDS = 5.0


def _read(path: pathlib.Path | str) -> Story | StoryError:
    try:
        return load_story(path)
    except StoryError as error:
        return error


def read(path: pathlib.Path) -> Story | StoryError:
    """A story, or why it is none; everything else is a failure of the test."""
    began = time.perf_counter()
    found = _read(path)
    assert time.perf_counter() - began < LONGEST_SECONDS
    if isinstance(found, StoryError):
        assert found.problems
        for problem in found.problems:
            assert problem.where.startswith(str(path.parent)), problem
            assert str(problem).removeprefix(problem.where).isprintable(), problem
            assert len(problem.message) < 400, problem
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_committed_story_is_read_or_refused_in_lines(path):
    assert isinstance(read(path), Story) == (path.name in GOOD)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("jg.json", "jg.json: shot2: missing; shot3 is there"),
        ("tag_timestamp.yaml", ":3: global: 'x' looks like a timestamp but is none"),
        ("tag_int.yaml", ":5: shots[0].seed: '' looks like a int"),
        ("tag_bool.yaml", ":3: global: 'maybe' looks like a bool"),
        ("tag_set.yaml", ":3: defaults: 'tag:yaml.org,2002:set' is no tag of a story"),
        ("escape_beyond.yaml", ":3: not YAML: "),
        ("sexagesimal.yaml", ":3: defaults.seed: '1:59"),
        ("digits.yaml", ":3: defaults.size[0]: a number of"),
        ("huge.json", "not JSON: a number of 5000 digits"),
        ("shot_names.json", ":1: Shot2: is no name of a caption; write shot1"),
        ("plain_bad_seed.csv", "plain_bad_seed.csv:2: shots[0].seed: 'x' is not a whole number"),
        ("plain_unknown.csv", "plain_unknown.csv:1: sed: unknown field; did you mean seed?"),
        ("plain_no_caption.csv", "plain_no_caption.csv:2: shots[0].caption: missing"),
    ],
)
def test_a_refusal_has_a_line_and_a_field(name, says):
    found = read(CORPUS / name)
    assert isinstance(found, StoryError)
    assert says in str(found)


def test_a_row_of_empty_cells_is_no_story():
    """Kind: what spreadsheets leave behind counted as content."""
    assert [shot.caption for shot in load_story(CORPUS / "bc.csv").shots] == ["One, two.", "Three"]


def test_a_plain_table_has_a_shot_a_row():
    story = load_story(CORPUS / "plain.csv")
    assert [(shot.caption, shot.seed) for shot in story.shots] == [
        ("A red ball.", 1),
        ("A dog, asleep.", 2),
    ]
    assert (story.title, story.version) == ("plain", 2)
    assert load_story(CORPUS / "plain_semicolons.csv").shots[0].caption == "A red ball, close."
    with pytest.raises(StoryError, match=r"plain.csv without #2"):
        load_story(f"{CORPUS / 'plain.csv'}#2")


def test_what_is_not_filmed_is_noted(tmp_path):
    """Kind: nothing vanishes; captions beyond a table's shots, and names that no shot reads."""
    (tmp_path / "c.json").write_text(
        '{"global_caption": "g", "shot1": "a",\n"shot2": "b", "style": "c"}'
    )
    (tmp_path / "t.csv").write_text('json_path,frame_number\nc.json,"[[0, 1]]"\n')
    notes = read_story(tmp_path / "t.csv").notes
    assert [str(note.path[0]) for note in notes] == ["shot2", "style"]
    assert notes[0].where == f"{tmp_path / 'c.json'}:2"


@pytest.mark.parametrize("suffix", ["yaml", "json", "csv"])
def test_too_many_shots_are_refused_by_a_stated_limit_at_once(tmp_path, suffix):
    """Kind: time that grows with the square of a file's length; 16,000 shots took minutes."""
    many = 16_000
    texts = {
        "yaml": HEAD + "shots:\n" + "  - {caption: a, seed: 1}\n" * many,
        "json": '{"version": 2, "title": "A", "shots": ['
        + ", ".join(['{"caption": "a"}'] * many)
        + "]}",
        "csv": "caption\n" + "a\n" * many,
    }
    path = tmp_path / f"story.{suffix}"
    path.write_text(texts[suffix])
    began = time.perf_counter()
    with pytest.raises(StoryError, match=r"1,?000"):
        load_story(path)
    assert time.perf_counter() - began < 2.0


@pytest.mark.parametrize("suffix", STORY_SUFFIXES)
def test_ten_megabytes_are_refused_by_a_stated_limit_unread(tmp_path, suffix):
    """Kind: memory and time asked for before a size is looked at."""
    path = tmp_path / f"story{suffix}"
    path.write_bytes(b"#" * 10_000_000)
    began = time.perf_counter()
    with pytest.raises(StoryError, match=f"more than {MOST_BYTES:,} bytes"):
        load_story(path)
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "".join(f"x{k}: {k}\n" for k in range(150_000)),
        HEAD + "global: {" + ", ".join(f"x{k}" for k in range(150_000)) + "}\n",
        HEAD + "global: " + "[" * 1_000_000,
        HEAD + "defaults: {seed: " + "1:" * 450_000 + "1}\n",
        HEAD + f"{'x' * 450_000}: 1\nshots: [caption: a]\n",
        HEAD + "shots:\n- caption: a\n  id: '" + "y" * 450_000 + "'\n",
        HEAD + "shots:\n- caption: a\n  transition: '" + "y" * 450_000 + "'\n",
        HEAD + "shots:\n- caption: '" + "y" * 450_000 + "'\n",
        HEAD + "? " * 450_000,
        HEAD + "- " * 450_000,
        "&a " * 300_000,
        "!a " * 300_000,
        "{" * 450_000,
        "\n" * 450_000,
        "'" + "'" * 450_000,
        "#\n" * 450_000,
        "%A\n" * 300_000,
    ],
    ids=range(17),
)
def test_a_megabyte_of_anything_take_seconds(tmp_path, text):
    path = tmp_path / "story.yaml"
    path.write_text(text)
    assert isinstance(read(path), StoryError)


@pytest.mark.slow
def test_the_longest_story_that_is_allowed_is_read(tmp_path):
    shots = "".join(
        f"- {{caption: c{k}, id: i{k}, seed: 1, chunks: 1, take: 0, transition: cut}}\n"
        for k in range(most_shots())
    )
    path = tmp_path / "story.yaml"
    path.write_text(f"{HEAD}shots:\n{shots}")
    began = time.perf_counter()
    assert len(load_story(path).shots) == most_shots()
    assert time.perf_counter() - began < 2 * LONGEST_SECONDS


class TestStandardInput:
    @pytest.mark.parametrize(
        "name", ["good.yaml", "plain.csv", "plain_semicolons.csv", "jg.json", "bc.csv", "nul.yaml"]
    )
    def test_is_read_by_what_it_holds(self, name, monkeypatch):
        content = (CORPUS / name).read_bytes()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        monkeypatch.chdir(CORPUS)
        expected, found = read(CORPUS / name), _read("-")
        if isinstance(expected, Story):
            assert isinstance(found, Story)
            assert found.shots == expected.shots
        else:
            assert isinstance(found, StoryError)
            assert found.problems[0].message == expected.problems[0].message
            assert found.problems[0].where.startswith("stdin")

    def test_that_is_closed_or_endless_is_one_line(self, monkeypatch):
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(StoryError, match="cannot be read"):
            load_story("-")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x" * (MOST_BYTES + 9))))
        with pytest.raises(StoryError, match="more than"):
            load_story("-")


@pytest.mark.parametrize("name", ["a\0b.yaml", "a\0b.csv#1", "a" * 5000 + ".yaml", "\udcff.yaml"])
def test_names_that_no_file_system_takes(name):
    with pytest.raises(StoryError, match="cannot be read"):
        load_story(name)


CONTENTS = [path.read_bytes() for path in FILES]
# What PyYAML, JSON and CSV have rules for; separated by the one letter that none of them has.
TOKENS = st.sampled_from(
    (
        b"!!@!!int @!!timestamp @&a @*a@<<@? @: @- @{@}@[@]@\"@'@\\U@\\x@|@>@#@---@%@\0@  @\n@.nan@"
        b"1e999@0x@0b@1:60@2024-99-99@null@~@\xef\xbb\xbf@\xff@version: 2\n@title: a\n@caption,@"
        b"shots:\n- caption: a\n@shot1"
    ).split(b"@")
)


@st.composite
def story_texts(draw: st.DrawFn) -> bytes:
    """A committed story with pieces of others and bad tokens put in, or taken away."""
    text = draw(st.sampled_from(CONTENTS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 40)))
        other = draw(st.sampled_from(CONTENTS))
        begin = draw(st.integers(0, len(other)))
        new = draw(
            st.one_of(TOKENS, st.binary(max_size=8), st.just(other[begin : begin + 30])),
        )
        text = text[:start] + new * draw(st.sampled_from([1, 1, 1, 50])) + text[end:]
    return text


def _fuzz(text: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, f"story{suffix}")
        path.write_bytes(text)
        read(path)


SUFFIXES = st.sampled_from([".yaml", ".json", ".csv"])


@settings(deadline=None, max_examples=150)
@given(story_texts(), SUFFIXES)
def test_any_text_is_a_story_or_refused(text, suffix):
    _fuzz(text, suffix)


@pytest.mark.slow
@settings(deadline=None, max_examples=50_000)
@given(story_texts() | st.binary(max_size=400), SUFFIXES)
def test_fifty_thousand_texts_are_stories_or_refused(text, suffix):
    _fuzz(text, suffix)
