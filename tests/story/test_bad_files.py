"""Bad files: one line each, with the place, the field, what was found, and what to do."""

import json

import pytest

from shotstream_jax.story import Defaults, Shot, Story, StoryError, load_story

HEAD = "version: 1\ntitle: A film\n"
SHOTS = "shots:\n  - caption: One.\n"

FIELDS = [
    # file, line, field, what the message says
    ("version: 3\ntitle: A\nshoots: []\n", 1, "version", "3 is not known; write 1 or 2"),
    ("title: A film\n" + SHOTS, 1, "version", "missing; add version: 2"),
    (f"{HEAD}shots: []\n", 3, "shots", "0 in the list, 1 or more needed"),
    (f"{HEAD}", 1, "shots", "missing; add shots"),
    (f"{HEAD}shots:\n  - caption: ''\n", 4, "shots[0].caption", "'' has no words"),
    (f"{HEAD}shots:\n  - caption: '  '\n", 4, "shots[0].caption", "'  ' has no words"),
    (f"{HEAD}shots:\n  - seed: 1\n", 4, "shots[0].caption", "missing; add caption"),
    (f"{HEAD}{SHOTS}    chunks: 0\n", 5, "shots[0].chunks", "0 is below 1"),
    (f"{HEAD}{SHOTS}    chunks: 5000\n", 5, "shots[0].chunks", "5000 is above 1000"),
    (f"{HEAD}{SHOTS}    chunks: two\n", 5, "shots[0].chunks", "'two' is not a whole number"),
    (f"{HEAD}{SHOTS}    chunks: true\n", 5, "shots[0].chunks", "True is not a whole number"),
    (f"{HEAD}{SHOTS}    seed:\n", 5, "shots[0].seed", "nothing is written"),
    (f"{HEAD}{SHOTS}    seed: -1\n", 5, "shots[0].seed", "-1 is below 0"),
    (f"{HEAD}{SHOTS}    id: ../up\n", 5, "shots[0].id", "'../up' is not a name"),
    (f"{HEAD}{SHOTS}    transition: continue\n", 5, "shots[0].transition", "write cut"),
    (f"{HEAD}{SHOTS}    transition: cuts\n", 5, "shots[0].transition", "write cut"),
    (f"{HEAD}{SHOTS}    captoin: x\n", 5, "shots[0].captoin", "did you mean caption?"),
    (f"{HEAD}{SHOTS}globl: x\n", 5, "globl", "did you mean global?"),
    (f"{HEAD}{SHOTS}zoom: x\n", 5, "zoom", "the fields are version, title, global"),
    (f"{HEAD}defaults: {{size: [480, 833]}}\n{SHOTS}", 3, "defaults.size[1]", "write 832 or 848"),
    (f"{HEAD}defaults: {{size: [480]}}\n{SHOTS}", 3, "defaults.size", "[height, width]"),
    (f"{HEAD}defaults: {{size: 480}}\n{SHOTS}", 3, "defaults.size", "480 is not a list"),
    (f"{HEAD}defaults: {{fps: 0.5}}\n{SHOTS}", 3, "defaults.fps", "0.5 is not a whole number"),
    (f"{HEAD}defaults: {{seed: 0x{'f' * 9}}}\n{SHOTS}", 3, "defaults.seed", "is above 4294967295"),
    (f"{HEAD}defaults: {{fps: .inf}}\n{SHOTS}", 3, "defaults.fps", "inf is not a whole number"),
    (f"{HEAD}shots: none\n", 3, "shots", "'none' is not a list"),
    (f"{HEAD}shots: [one]\n", 3, "shots[0]", "'one' is not a group of fields"),
    ("version: 1\ntitle: 2024-01-01\n" + SHOTS, 2, "title", "2024-01-01 is not text in quotes"),
    ("version: 1\ntitle: 2024-13-45\n" + SHOTS, 2, "title", "put text in quotes"),
    ("- a\n- b\n", 1, "", "a list of 2 is not a group of fields"),
    (f"{HEAD}title: Again\n{SHOTS}", 3, "title", "written twice, first at"),
    (f"{HEAD}global: &a x\nshots:\n  - caption: *a\n", 5, "shots[0].caption", "an alias"),
    (f"{HEAD}{SHOTS}    <<: {{seed: 1}}\n", 5, "shots[0]", "'<<' is no field name"),
    (f"{HEAD}{SHOTS}    7: x\n", 5, "shots[0]", "'7' is no field name"),
    (f"{HEAD}shots:\n  - {{caption: a, id: s2}}\n  - caption: b\n", 5, "shots[1].id", "rename one"),
    (f"{HEAD}shots:\n  - caption: Wide: a cat\n", 4, "", "needs quotes around it"),
    (f"{HEAD}global: 'open\n{SHOTS}", 3, "", "not YAML"),
    (f"{HEAD}global: !!python/name:os.system x\n{SHOTS}", 3, "", "not YAML"),
    (f"{HEAD}{SHOTS}---\n{SHOTS}", 1, "", "not YAML"),
    (f'{HEAD}global: "\\ud800"\n{SHOTS}', 3, "global", "half a character"),
    ("", None, "", "empty"),
    ("# only a comment\n", None, "", "empty"),
]


@pytest.mark.parametrize(("text", "line", "field", "says"), FIELDS)
def test_yaml_says_where_and_what(write, text, line, field, says):
    path = write(text.encode())
    with pytest.raises(StoryError) as refused:
        load_story(path)
    found = str(refused.value.problems[0])
    assert found.startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert f" {field}: " in found or not field
    assert says in found
    assert "\n" not in str(refused.value)


JSON = [
    ('{"version": 1,\n "title" "A"}', 2, "", "not JSON: expecting ':' delimiter"),
    ('{"version": 1,\n "title": "A",\n "title": "B"}', 3, "title", "written twice, first at"),
    (
        '{"version": 1, "title": "A",\n "shots": [{"caption": "a"},\n  {}]}',
        3,
        "shots[1].caption",
        "missing",
    ),
    (
        '{"version": 1, "title": "A",\n "shots": [\n  {"caption": "\\u0007"}]}',
        3,
        "shots[0].caption",
        "control",
    ),
    (
        '{"version": 1, "title": "A",\n "shots": [\n  {"caption": "\\ud83d"}]}',
        3,
        "shots[0].caption",
        "half",
    ),
    # Tabs and characters that YAML refuses or counts as line ends are JSON all the same.
    (
        '{\n\t"version": 1,\n\t"title": "A",\n\t"shots": [\n\t\t{}]}',
        5,
        "shots[0].caption",
        "missing",
    ),
    (
        '{"version": 1,\n "title": "\u2028\U0001f3ac",\n "shots": [\n{}]}',
        4,
        "shots[0].caption",
        "missing",
    ),
    ('{"version"\n: 1}', 2, "", "a name apart from its ':'"),
    ('{"version": NaN}', None, "", "NaN is not a JSON number"),
    ("[" * 100_000, None, "", "groups within groups"),
    ("null", None, "", "empty"),
]


@pytest.mark.parametrize(("text", "line", "field", "says"), JSON)
def test_json_says_where_and_what(write, text, line, field, says):
    path = write(text.encode(), "story.json")
    with pytest.raises(StoryError) as refused:
        load_story(path)
    found = str(refused.value.problems[0])
    assert found.startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert f" {field}: " in found or not field
    assert says in found


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("story.yaml", b"title: \xff\xfe", ":1: byte 0xff is not UTF-8"),
        ("story.yaml", b"title: a\nglobal: \x00", ":2: not YAML: control character"),
        ("story.yaml", b"[" * 100_000, "groups within groups"),
        ("story.txt", b"", "'.txt' is no story file"),
        ("story", b"", "'' is no story file"),
    ],
)
def test_files_that_hold_no_text(write, name, content, says):
    with pytest.raises(StoryError, match=says):
        load_story(write(content, name))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(StoryError, match=r"nowhere\.yaml: cannot be read: no such file"):
        load_story(tmp_path / "nowhere.yaml")


def test_a_million_aliases_cost_nothing(write):
    """Nine levels of ten aliases would be a billion captions."""
    levels = ["a0: &a0 [x, x]"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)
    ]
    with pytest.raises(StoryError, match="an alias"):
        load_story(write("\n".join(levels)))


def test_all_problems_are_told_in_the_order_of_the_file(write):
    text = HEAD + "zoom: 1\ndefaults: {fps: fast}\nshots:\n  - {caption: '', chunks: 0}\n  - {}\n"
    with pytest.raises(StoryError, match=r"zoom: .* \(and 4 more\)$") as refused:
        load_story(write(text))
    fields = [str(problem).split(": ")[1] for problem in refused.value.problems]
    assert fields[:2] == ["zoom", "defaults.fps"]
    assert set(fields[2:4]) == {"shots[0].caption", "shots[0].chunks"}
    assert fields[4] == "shots[1].caption"


def test_long_values_are_shortened(write):
    with pytest.raises(StoryError) as refused:
        load_story(write(HEAD + f"defaults: {{fps: {'x' * 5000}}}\n" + SHOTS))
    assert len(str(refused.value.problems[0].message)) < 150


class TestInPython:
    def test_stories_made_in_python_answer_to_the_same_rules(self):
        with pytest.raises(StoryError, match="chunks: 0 is below 1"):
            Shot(caption="a", chunks=0)
        with pytest.raises(StoryError, match=r"size\[1\]: 90 is not a multiple of 16"):
            Defaults(size=(64, 90))
        with pytest.raises(StoryError, match="shots: 0 in the list"):
            Story(title="A", shots=())
        with pytest.raises(StoryError, match=r"shots\[0\]\.transition"):
            Story(title="A", shots=(Shot(caption="a", transition="continue"),))
        with pytest.raises(StoryError, match=r"shots\[1\]\.id: shots\[0\] is called 'a' too"):
            Story(title="A", shots=(Shot(caption="a", id="a"), Shot(caption="b", id="a")))

    def test_every_problem_of_a_document_is_told(self):
        document = {"version": 1, "title": "", "shots": [{}], "zoom": json.loads("1e999")}
        with pytest.raises(StoryError) as refused:
            Story.from_document(document)
        assert {p.path for p in refused.value.problems} == {
            ("title",),
            ("zoom",),
            ("shots", 0, "caption"),
        }
