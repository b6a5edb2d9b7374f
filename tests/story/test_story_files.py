"""Story files: what is read, what is written, and that the two undo each other."""

import copy
import json
import pathlib
import tempfile

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from shotstream_jax.story import (
    Defaults,
    Problem,
    Shot,
    Story,
    StoryError,
    dump_story,
    load_story,
    read_story,
    story_schema,
)

GOOD = """
    version: 1
    title: The lighthouse
    global: "[Mara], grey braid, yellow coat."
    defaults: {seed: 7, chunks: 2, size: [64, 96], fps: 8}
    shots:
      - {id: stairs, caption: "Mara climbs the stairs."}
      - caption: She lights the lamp.
        seed: 11
        chunks: 3
        transition: continue
"""
MEANT = Story(
    version=1,
    title="The lighthouse",
    global_caption="[Mara], grey braid, yellow coat.",
    defaults=Defaults(seed=7, chunks=2, size=(64, 96), fps=8),
    shots=(
        Shot(id="stairs", caption="Mara climbs the stairs."),
        Shot(caption="She lights the lamp.", seed=11, chunks=3, transition="continue"),
    ),
)

CONTROLS = "".join(map(chr, [*range(9), 11, 12, *range(14, 32), 127]))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=CONTROLS))
words = texts.filter(lambda text: text.strip() != "")
seeds = st.integers(0, 2**32 - 1)
chunks = st.integers(1, 1000)
pixels = st.integers(1, 256).map(lambda patches: 16 * patches)


first_shots = st.fixed_dictionaries(
    {"caption": words}, optional={"seed": seeds, "chunks": chunks, "id": st.just("first")}
)
later_shots = st.fixed_dictionaries(
    {"caption": words},
    optional={"seed": seeds, "chunks": chunks, "transition": st.sampled_from(["cut", "continue"])},
)
good_documents = st.fixed_dictionaries(
    {
        "version": st.sampled_from([1, 2]),
        "title": words,
        "shots": st.builds(
            lambda first, later: [first, *later], first_shots, st.lists(later_shots, max_size=3)
        ),
    },
    optional={
        "global": texts,
        "defaults": st.fixed_dictionaries(
            {},
            optional={
                "seed": seeds,
                "chunks": chunks,
                "fps": st.integers(1, 120),
                "size": st.lists(pixels, min_size=2, max_size=2),
            },
        ),
    },
)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", " ", "cut", "continue", "fade", "s1", "s2", "\x07", "words"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def damaged_documents(draw: st.DrawFn) -> object:
    """The document of a story, with one thing in it changed, taken away or added."""
    document = copy.deepcopy(MEANT.document())
    place, holders = document, [document]
    holders += [document["defaults"], document["defaults"]["size"], document["shots"]]
    holders += document["shots"]
    place = draw(st.sampled_from(holders))
    if isinstance(place, list):
        place[draw(st.integers(0, 1))] = draw(values)
    elif draw(st.booleans()):
        del place[draw(st.sampled_from(sorted(place)))]
    else:
        names = st.sampled_from([*sorted(place), "chunks", "transition", "id", "captoin"])
        place[draw(names)] = draw(values)
    return document


def problems_of(path: pathlib.Path) -> tuple[Problem, ...]:
    try:
        load_story(path)
    except StoryError as error:
        return error.problems
    return ()


class TestLoad:
    def test_yaml(self, write):
        assert load_story(write(GOOD)) == MEANT
        assert load_story(write(GOOD, "story.yml")) == MEANT

    def test_json(self, write):
        assert load_story(write(json.dumps(MEANT.document()), "story.json")) == MEANT

    def test_a_byte_order_mark_and_windows_lines(self, write):
        plain = write(GOOD).read_text()
        windows = write(b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").encode(), "windows.yaml")
        assert load_story(windows) == MEANT

    def test_json_escapes_beyond_the_first_plane(self, write):
        document = {**MEANT.document(), "title": "\U0001f3ac 灯台 مرحبا"}
        path = write(json.dumps(document, ensure_ascii=True), "story.json")
        assert load_story(path).title == document["title"]

    def test_defaults_are_those_of_the_release(self, write):
        story = load_story(write("{version: 1, title: A, shots: [{caption: b}]}"))
        assert story.defaults == Defaults(seed=0, size=(480, 832), fps=16, chunks=7)
        assert story.shots == (Shot(caption="b"),)

    def test_a_folder_with_one_story(self, write, tmp_path):
        write(GOOD, "story.yaml")
        assert load_story(tmp_path) == MEANT
        write(GOOD, "story.json")
        with pytest.raises(StoryError, match="2 stories"):
            load_story(tmp_path)

    def test_every_field_has_its_line(self, write):
        path = write(GOOD)
        places = read_story(path).places
        for field, line in (
            (("title",), 2),
            (("defaults", "size", 1), 4),
            (("shots",), 5),
            (("shots", 1), 7),
            (("shots", 1, "chunks"), 9),
        ):
            assert places.of(field) == f"{path}:{line}", field
        assert places.of(("shots", 0, "seed")) == f"{path}:6", "what is not there stands near by"


class TestDump:
    @settings(deadline=None)
    @given(good_documents)
    def test_loading_undoes_it(self, document):
        story = Story.from_document(document)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "story.yaml")
            path.write_text(dump_story(story), encoding="utf-8", newline="")
            assert load_story(path) == story.resolved()

    @settings(deadline=None)
    @given(good_documents)
    def test_documents_undo_it_too(self, document):
        story = Story.from_document(document)
        assert Story.from_document(story.document()) == story
        assert Story.from_document(json.loads(json.dumps(story.document()))) == story

    def test_later_defaults_change_nothing(self):
        written = yaml.safe_load(dump_story(MEANT))
        assert written["shots"][0] == {
            "caption": "Mara climbs the stairs.",
            "seed": 7,
            "chunks": 2,
            "transition": "cut",
            "id": "stairs",
        }
        assert written["shots"][1]["id"] == "s2"
        assert written["defaults"] == {"seed": 7, "size": [64, 96], "fps": 8, "chunks": 2}

    def test_is_pleasant_to_read(self):
        assert "size: [64, 96]" in dump_story(MEANT)
        assert "灯台" in dump_story(Story(title="灯台", shots=(Shot(caption="a"),)))


class TestSchema:
    def test_is_a_schema(self):
        jsonschema.Draft202012Validator.check_schema(story_schema())

    @settings(deadline=None)
    @given(good_documents)
    def test_allows_every_story(self, document):
        jsonschema.validate(document, story_schema())
        jsonschema.validate(Story.from_document(document).document(), story_schema())

    @settings(deadline=None, max_examples=150)
    @given(damaged_documents(), st.sampled_from(["json", "yaml"]))
    def test_agrees_with_the_loader(self, document, suffix):
        allowed = jsonschema.Draft202012Validator(story_schema()).is_valid(document)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, f"story.{suffix}")
            text = json.dumps(document) if suffix == "json" else yaml.safe_dump(document)
            path.write_text(text, encoding="utf-8")
            problems = problems_of(path)
        if allowed:
            # The one rule that a schema cannot say: names differ.
            assert all("rename one" in problem.message for problem in problems)
        else:
            assert problems
        for problem in problems:
            assert problem.where.startswith(str(path))
            assert "\n" not in str(problem)
