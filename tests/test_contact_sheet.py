"""Contact sheets: which frames are shown, what is written, and that nothing is cut off unseen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shotstream_jax.contact_sheet import (
    ContactRow,
    contact_sheet,
    font_for,
    save_png,
    wrap_text,
)
from shotstream_jax.story import spread_frames

BACKGROUND = (18, 19, 23)


def shaded(frames: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Each frame in a grey of its own, 100 and up."""
    film = np.zeros((frames, height, width, 3), np.uint8)
    film += (100 + np.arange(frames, dtype=np.uint8))[:, None, None, None]
    return film


def row(frames: np.ndarray, **words: object) -> ContactRow:
    return ContactRow(**{"label": "s1", "caption": "It sits.", "seed": 7, **words}, frames=frames)


def greys(sheet: Image.Image, y: int) -> list[int]:
    """Values of the tiles that a horizontal line meets, from left to right."""
    line = np.asarray(sheet)[y]
    flat = (line == line[:, :1]).all(axis=1) & (line[:, 0] >= 100)
    values = line[flat, 0]
    return [int(value) for value in values[np.insert(np.diff(values) != 0, 0, True)]]


class TestSheet:
    @pytest.mark.parametrize(("frames", "columns"), [(21, 6), (9, 4), (6, 6), (81, 5)])
    def test_shows_evenly_spaced_frames_first_and_last_included(self, frames, columns):
        sheet = contact_sheet([row(shaded(frames))], title="A film", columns=columns)
        shown = greys(sheet, sheet.height - 60)
        assert shown == [100 + index for index in spread_frames(0, frames - 1, columns)]

    def test_a_short_shot_shows_each_frame_once(self):
        sheet = contact_sheet([row(shaded(2))], title="A film", columns=6)
        assert greys(sheet, sheet.height - 60) == [100, 101]

    def test_has_a_row_for_each_shot(self):
        one, two = (contact_sheet([row(shaded(6))] * n, title="A film") for n in (1, 2))
        assert two.width == one.width
        assert two.height > one.height + 128
        shown = np.asarray(two)[:, 50]
        tiles = (shown == 100).all(axis=1).astype(int)
        assert (np.diff(tiles) == 1).sum() == 2

    def test_small_frames_are_enlarged_pixel_by_pixel(self):
        pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
        sheet = np.asarray(contact_sheet([row(pixels)], title="A film", columns=1))
        enlarged = pixels[0].repeat(2, axis=0).repeat(2, axis=1)
        tile = sheet[-36 - 128 : -36, 36 : 36 + 192]
        # The outermost pixel is the tile's edge.
        np.testing.assert_array_equal(tile[1:-1, 1:-1], enlarged[1:-1, 1:-1])

    def test_large_frames_are_reduced(self):
        sheet = contact_sheet([row(shaded(3, 480, 832))], title="A film", columns=3)
        assert sheet.width == 3 * 192 + 2 * 8 + 2 * 36

    def test_a_row_of_a_large_film_holds_tiles_and_shows_the_same(self):
        """Kind: the rows of a long film at full size took memory that grew with every shot."""
        film = np.random.default_rng(0).integers(0, 256, (9, 240, 416, 3), dtype=np.uint8)
        words = {"label": "s1", "caption": "It sits.", "seed": 7}
        small = ContactRow.of_film(film, **words)
        assert small.frames.nbytes < film[:6].nbytes / 4
        sheets = [contact_sheet([made], title="A film") for made in (small, row(film))]
        np.testing.assert_array_equal(*map(np.asarray, sheets))

    def test_title_badge_label_caption_and_seed_are_all_drawn(self):
        plain = {"title": "A", "badge": ""}
        words = {"label": "a", "caption": "b", "seed": 1}
        base = np.asarray(contact_sheet([row(shaded(6), **words)], **plain))
        for change in ({"title": "B"}, {"badge": "random weights"}):
            assert (
                np.asarray(contact_sheet([row(shaded(6), **words)], **plain | change)) != base
            ).any()
        for change in ({"label": "c"}, {"caption": "d"}, {"seed": 2}):
            changed = contact_sheet([row(shaded(6), **words | change)], **plain)
            assert (np.asarray(changed) != base).any()

    def test_margins_stay_clear(self):
        long = "word " * 500
        rows = [row(shaded(6), label=long, caption=long, seed=2**32 - 1)]
        sheet = np.asarray(contact_sheet(rows, title=long, badge="random weights"))
        for edge in (sheet[:34], sheet[-34:], sheet[:, :34], sheet[:, -34:]):
            assert (edge == BACKGROUND).all()

    @pytest.mark.parametrize("text", ["灯台 مرحبا 🎬 Ж", "\ud800 half", "a\tb\nc", "", "x" * 3000])
    def test_any_text_can_be_drawn(self, text):
        contact_sheet([row(shaded(2), label=text, caption=text)], title=text, badge=text)

    def test_is_the_same_each_time(self):
        one, two = (contact_sheet([row(shaded(6))], title="A film") for _ in range(2))
        assert one.tobytes() == two.tobytes()

    @pytest.mark.parametrize(
        ("rows", "columns", "complaint"),
        [
            ([], 6, "0 shots"),
            ([row(shaded(1))], 0, "0 columns"),
            ([row(shaded(0))], 6, "s1 has no"),
        ],
    )
    def test_nothing_to_show_is_refused(self, rows, columns, complaint):
        with pytest.raises(ValueError, match=complaint):
            contact_sheet(rows, title="A film", columns=columns)


class TestWrap:
    FONT = font_for("abc", 16)

    def test_short_text_is_left_alone(self):
        assert wrap_text("It sits.", self.FONT, 500, 2) == ("It sits.",)
        assert wrap_text("  It \n sits.\t", self.FONT, 500, 2) == ("It sits.",)
        assert wrap_text("", self.FONT, 500, 2) == ()

    def test_breaks_between_words(self):
        text = "one two three four five six"
        lines = wrap_text(text, self.FONT, 90, 9)
        assert len(lines) > 1
        assert " ".join(lines) == text

    def test_what_is_cut_short_ends_in_an_ellipsis(self):
        lines = wrap_text("word " * 100, self.FONT, 200, 2)
        assert len(lines) == 2
        assert not lines[0].endswith("…")
        assert lines[1].endswith("…")

    @settings(deadline=None)
    @given(st.text(max_size=120), st.integers(60, 400), st.integers(1, 4))
    def test_lines_fit_and_lose_nothing_unsaid(self, text, width, lines):
        broken = wrap_text(text, self.FONT, width, lines)
        assert len(broken) <= lines
        assert all(self.FONT.getlength(line) <= width for line in broken)
        spoken = "".join(text.encode("utf-8", "replace").decode().split())
        kept = "".join("".join(broken).split())
        if kept != spoken:
            assert broken[-1].endswith("…")
            assert spoken.startswith(kept.removesuffix("…"))


class TestSave:
    def test_png_reads_back(self, tmp_path):
        sheet = contact_sheet([row(shaded(6))], title="A film")
        save_png(sheet, tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as read:
            assert read.format == "PNG"
            assert read.tobytes() == sheet.tobytes()
        assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]
