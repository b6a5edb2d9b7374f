"""The public implementation's tables and caption files."""

import json

import pytest

from shotstream_jax.story import StoryError, full_captions, load_story

CAPTIONS = {
    "global_caption": "A cat.",
    "shot1": "It sits.",
    "shot2": "It runs.",
    "shot3": "It naps.",
}
HEADER = "shot_num_from_caption,json_path,frame_number\n"


@pytest.fixture
def table(write, tmp_path):
    """A table of stories with these numbers of shots."""

    def table(*shots: int, captions: dict | None = None):
        (tmp_path / "cat.json").write_text(json.dumps(captions or CAPTIONS, indent=1))
        rows = []
        for count in shots:
            ranges = [[81 * k, 81 * (k + 1)] for k in range(count)]
            rows.append(f'{count},cat.json,"{ranges}"\n')
        return write(HEADER + "".join(rows), "demo.csv")

    return table


class TestTable:
    def test_a_row_is_a_story_of_as_many_shots_as_pairs(self, table):
        path = table(2, 3)
        assert [len(load_story(f"{path}#{row}").shots) for row in (1, 2)] == [2, 3]
        story = load_story(f"{path}#1")
        assert story.title == "cat"
        assert full_captions(story) == ("A cat.shot0:It sits.", "A cat.shot1:It runs.")

    def test_a_single_row_needs_no_number(self, table, tmp_path):
        path = table(3)
        assert load_story(path) == load_story(f"{path}#1") == load_story(tmp_path)

    def test_lengths_and_sizes_are_those_of_the_release(self, table):
        defaults = load_story(table(1)).defaults
        assert (defaults.chunks, defaults.size, defaults.fps) == (7, (480, 832), 16)

    def test_several_rows_need_a_number(self, table):
        path = table(2, 3)
        with pytest.raises(StoryError, match=r"2 stories; choose one, demo\.csv#1 to demo\.csv#2"):
            load_story(path)
        for row in (0, 3):
            with pytest.raises(StoryError, match=f"no row {row}; its rows are 1 to 2"):
                load_story(f"{path}#{row}")

    def test_a_caption_that_is_not_there_is_named(self, table):
        with pytest.raises(StoryError, match=r"cat\.json: shot4: missing; the table lists 4 shots"):
            load_story(table(4))

    def test_problems_stand_where_the_captions_do(self, table):
        with pytest.raises(StoryError, match=r"cat\.json:4: shots\[1\]\.caption: ' ' has no words"):
            load_story(table(2, captions={**CAPTIONS, "shot2": " "}))

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("json_path\ncat.json\n", r"demo\.csv:1: frame_number: no such column"),
            (HEADER, "no stories under the header"),
            (
                HEADER + '1,none.json,"[[0, 81]]"\n',
                r"demo\.csv:2: json_path: 'none\.json' is neither",
            ),
            (HEADER + "1,cat.json,[[0, 81]]\n", r"demo\.csv:2: 4 cells under 3 columns"),
            (HEADER + '\n1,cat.json,"[[81, 81]]"\n', r"demo\.csv:3: frame_number: .* start < end"),
            (HEADER + '1,cat.json,"[]"\n', "is not a list of shots"),
            (HEADER + "1,cat.json,\"__import__('os')\"\n", "is not a list of shots"),
            (HEADER + '1,cat.json,"[[0, 1], 2]"\n', "is not a list of shots"),
        ],
    )
    def test_bad_tables(self, table, write, text, says):
        table(1)
        with pytest.raises(StoryError, match=says):
            load_story(write(text, "demo.csv"))

    def test_quoted_line_ends_do_not_shift_the_lines(self, table, write):
        table(1)
        text = (
            HEADER.strip()
            + ',note\n1,cat.json,"[[0, 81]]","two\nlines"\n1,gone.json,"[[0, 81]]",\n'
        )
        with pytest.raises(StoryError, match=r"demo\.csv:4: json_path"):
            load_story(str(write(text, "demo.csv")) + "#2")


class TestCaptionFile:
    def test_is_a_story_of_all_its_captions(self, write):
        story = load_story(write(json.dumps(CAPTIONS), "cat.json"))
        assert [shot.caption for shot in story.shots] == ["It sits.", "It runs.", "It naps."]
        assert story.global_caption == "A cat."

    def test_other_json_is_no_caption_file(self, table, tmp_path):
        path = table(1)
        (tmp_path / "cat.json").write_text('{"shot1": "It sits."}')
        with pytest.raises(StoryError, match=r"cat\.json: global_caption: missing"):
            load_story(path)
